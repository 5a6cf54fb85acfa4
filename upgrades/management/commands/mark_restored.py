"""Makes the engine search ECS before it calls, after a restore that the database does not show."""

from typing import Any

from django.core.management.base import BaseCommand

from upgrades.engine.restored import MARKED
from upgrades.models import Rollout


class Command(BaseCommand):
    help = (
        "Mark the open upgrades as restored, so that the portal searches ECS for what they started before it calls. "
        "Needed only if a whole disk was put back; other restores are noticed."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        count = Rollout.objects.unfinished().update(database=MARKED)
        self.stdout.write(f"{count} open rollouts are searched for in ECS before anything is called.")
