"""Returns what ECS still does after it ended a rollout by early success: old tasks to stop, new tasks to start."""

from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from upgrades.inventory.ecs_services import RunningService
from upgrades.inventory.running import read_running_services
from upgrades.models import Rollout, Upgrade
from upgrades.states import Outcome

# ECS removes the old tasks within two weeks. A day more, because the end is the portal's observation.
DRAINING_LIMIT = timedelta(days=15)


@dataclass(frozen=True)
class Aftermath:
    """What still happens after an early success, as ECS reports it now.

    `old_tasks`: old tasks that still run. `missing_tasks`: new tasks that do not run yet. Both None: ECS was not read.
    """

    old_tasks: int | None = None
    missing_tasks: int | None = None

    @property
    def is_over(self) -> bool:
        return self.old_tasks == 0 and self.missing_tasks == 0


def read_aftermaths(upgrade: Upgrade) -> dict[int, Aftermath]:
    """Return the aftermath of each rollout that ended by early success, by the rollout's id.

    Without a rollout whose service was deployed again since, because ECS counts that deployment's tasks.

    *Costs* nothing unless a rollout ended so within the last DRAINING_LIMIT, else one reading (read_running_services).
    """
    since = timezone.now() - DRAINING_LIMIT
    early = [
        rollout
        for rollout in upgrade.rollouts.all()
        if rollout.outcome == Outcome.COMPLETED_EARLY and rollout.completed_at and rollout.completed_at > since
    ]
    reading = read_running_services(upgrade.organization) if early else None
    rows = {row.service: row for row in reading.services} if reading else {}
    is_known = reading is not None and reading.read_at is not None and not reading.error
    found = {rollout.pk: find_aftermath(rollout, rows.get(rollout.service) if is_known else None) for rollout in early}
    return {pk: aftermath for pk, aftermath in found.items() if aftermath is not None}


def find_aftermath(rollout: Rollout, row: RunningService | None) -> Aftermath | None:
    """Return the aftermath by the service as ECS reports it; None if it was deployed again since."""
    if row is None or row.deployment_id is None or row.old_tasks is None:
        return Aftermath()
    if row.deployment_id != rollout.deployment_id:
        return None
    new_tasks = (row.running_count or 0) - row.old_tasks
    return Aftermath(row.old_tasks, max((row.desired_count or 0) - new_tasks, 0))
