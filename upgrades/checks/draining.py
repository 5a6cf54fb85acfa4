"""What ECS still does after an early success: stop old tasks, start new ones. Kept in Rollout.is_draining and its counts.

With DEFERRED clean-up this may take two weeks. While the validation runs, its observations keep the counts up to date.
Afterwards the sweep does, every DRAINING_SECONDS, until all is done: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentEarlySuccessCriteria.html
"""

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from portal.aws import ecs
from portal.aws.errors import AwsError, AwsMissing
from portal.leases import find_due, find_organization
from portal.request_id import carrying
from portal.tenancy import organizations
from upgrades.events import record_event
from upgrades.models import Rollout
from upgrades.states import EventKind, PlatformService

logger = logging.getLogger(__name__)

DRAINING_SECONDS = 60
# ECS's own limit is two weeks.
LONGEST_DRAINING = timedelta(days=15)


def describe_draining(count: int) -> str:
    """Return the state as a clause.

    >>> describe_draining(1)
    'two versions serve, 1 old task still drains'
    """
    return f"two versions serve, {count} old task{' still drains' if count == 1 else 's still drain'}"


@dataclass(frozen=True)
class Draining:
    """`old_tasks` still run. Of `desired` tasks, `new_tasks` run."""

    old_tasks: int
    new_tasks: int
    desired: int

    @property
    def is_over(self) -> bool:
        return self.old_tasks == 0 and self.new_tasks >= self.desired


def find_draining_due() -> "QuerySet[Rollout]":
    """Return the draining rollouts whose tasks were last counted more than DRAINING_SECONDS ago."""
    return Rollout.objects.filter(
        is_draining=True,
        completed_at__gt=Now() - LONGEST_DRAINING,
        last_checked_at__lt=Now() - timedelta(seconds=DRAINING_SECONDS),
        organization__is_active=True,
    )


def list_draining_due(most: int) -> list[int]:
    """Return the ids of these rollouts in every organization, the longest due first. Needs no context."""
    pause = timedelta(seconds=DRAINING_SECONDS)
    return [pk for (pk,) in find_due("upgrades_draining_rollouts", pause, LONGEST_DRAINING, most)]


def refresh_draining(rollout_id: int) -> bool:
    """Count the tasks again, if that is due and no other worker does it. Return whether it was.

    Safe to call at any time, from any process. *Costs* one AWS call.
    """
    organization_id = find_organization("upgrades_rollout_organization", rollout_id)
    if organization_id is None:
        return False
    with organizations(organization_id):
        # Guard and mark are one statement, so that only one of several workers asks ECS.
        if not find_draining_due().filter(pk=rollout_id).update(last_checked_at=Now()):
            return False
        rollout = Rollout.objects.select_related("upgrade__organization").get(pk=rollout_id)
    with organizations(rollout.organization_id), carrying(rollout.upgrade.request_id):
        read_draining(rollout)
    return True


def read_draining(rollout: Rollout) -> None:
    """Count the tasks in ECS and record them. Without an answer, nothing is recorded."""
    upgrade = rollout.upgrade
    try:
        reading = ecs.describe_services(upgrade.aws_target, upgrade.cluster, [rollout.service_name])
        service = reading.service(rollout.service_name)
    except AwsMissing:
        service = None
    except AwsError as error:
        return logger.info("tasks of rollout %s not counted: %s", rollout.pk, error)
    with transaction.atomic():
        record_draining(rollout, count_draining(rollout, service))


def count_draining(rollout: Rollout, service: ecs.Service | None) -> Draining | None:
    """Return the tasks of the rollout's deployment and of those before it; None once another one has replaced it.

    The rollout has ended, so its deployment has too, although a read that lags may still show it in progress.
    """
    if service is None or service.primary is None or not is_own_deployment(rollout, service):
        return None
    return Draining(service.earlier_tasks, service.primary.running_count, service.desired_count)


def is_own_deployment(rollout: Rollout, service: ecs.Service) -> bool:
    """Return whether the newest deployment is the rollout's: by id, or by ARN if only that is known."""
    if service.primary is None:
        return False
    if rollout.deployment_id:
        return service.primary.id == rollout.deployment_id
    known = (rollout.service_deployment_arn, service.current_service_deployment)
    return None in known or known[0] == known[1]


def record_draining(rollout: Rollout, counted: Draining | None) -> None:
    """Write the counts of a draining rollout, with a timeline entry when it is over. None: another one has replaced it.

    The caller opens the transaction.
    """
    fields: dict[str, Any] = {"is_draining": False, "source_running": 0}
    if counted is not None:
        fields = {
            "is_draining": not counted.is_over,
            "source_running": counted.old_tasks,
            "target_running": counted.new_tasks,
            "desired_count": counted.desired,
        }
    draining = Rollout.objects.filter(pk=rollout.pk, is_draining=True)
    if not draining.update(last_checked_at=Now(), **fields) or counted is None or not counted.is_over:
        return
    label = PlatformService(rollout.service).label
    message = f"{label}: no old task drains any more. If the validation has ended before, rerun the checks."
    record_event(rollout.upgrade, EventKind.VALIDATED, message, rollout=rollout)
