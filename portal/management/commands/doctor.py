"""`manage.py doctor`: checks a site, with the settings of the web process, and says what to do."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portal.monitoring.doctor import CHECKS, find_problems


class Command(BaseCommand):
    help = "Check that this site is set up as the documentation asks. Run it with the settings of the web process."

    def handle(self, *args: Any, **options: Any) -> None:
        problems = list(find_problems())
        for problem in problems:
            self.stdout.write(f"- {problem.what}\n  {problem.advice}")
        if problems:
            raise CommandError(f"{len(problems)} found.")
        self.stdout.write(f"All {len(CHECKS)} checks passed.")
