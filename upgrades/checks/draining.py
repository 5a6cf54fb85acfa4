"""Old tasks that drain after a rollout has completed: how many are left, kept in Rollout.source_running.

After early success with DEFERRED clean-up, ECS removes them in the background, within up to two weeks. While the validation
runs, its observations keep the number up to date. Afterwards the sweep does, every DRAINING_SECONDS, until the last one is
gone: https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentEarlySuccessCriteria.html
"""

import logging
from datetime import timedelta

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from portal.aws import ecs
from portal.aws.errors import AwsError, AwsMissing
from upgrades.events import record_event
from upgrades.models import Rollout
from upgrades.states import ROLLED_OUT, EventKind, PlatformService

logger = logging.getLogger(__name__)

DRAINING_SECONDS = 600
# ECS's own limit is two weeks. A rollout that is older is no longer asked about.
LONGEST_DRAINING = timedelta(days=15)


def describe_draining(count: int) -> str:
    """Return the state as a clause.

    >>> describe_draining(1)
    'two versions serve, 1 old task still drains'
    """
    return f"two versions serve, {count} old task{' still drains' if count == 1 else 's still drain'}"


def find_draining_due() -> "QuerySet[Rollout]":
    """Return the completed rollouts whose old tasks were last counted more than DRAINING_SECONDS ago."""
    return Rollout.objects.filter(
        outcome__in=ROLLED_OUT,
        source_running__gt=0,
        completed_at__gt=Now() - LONGEST_DRAINING,
        last_checked_at__lt=Now() - timedelta(seconds=DRAINING_SECONDS),
        organization__is_active=True,
    )


def refresh_draining(rollout_id: int) -> bool:
    """Count the old tasks again, if that is due and no other worker does it. Return whether it was.

    Safe to call at any time, from any process. *Costs* one AWS call.
    """
    # Guard and mark are one statement, so that only one of several workers asks ECS.
    if not find_draining_due().filter(pk=rollout_id).update(last_checked_at=Now()):
        return False
    rollout = Rollout.objects.select_related("upgrade__organization").get(pk=rollout_id)
    upgrade = rollout.upgrade
    try:
        reading = ecs.describe_services(upgrade.aws_target, upgrade.cluster, [rollout.service_name])
        service = reading.service(rollout.service_name)
    except AwsMissing:
        service = None
    except AwsError as error:
        logger.info("old tasks of rollout %s not counted: %s", rollout.pk, error)
        return True
    with transaction.atomic():
        record_draining(rollout, count_old_tasks(rollout, service))
    return True


def count_old_tasks(rollout: Rollout, service: ecs.Service | None) -> int:
    """Return how many tasks still run that the rollout replaces: 0 once another deployment has replaced its own."""
    if service is None or not is_own_deployment(rollout, service):
        return 0
    return service.draining_count


def is_own_deployment(rollout: Rollout, service: ecs.Service) -> bool:
    """Return whether the newest deployment is the rollout's: by id, or by ARN if only that is known."""
    if service.primary is None:
        return False
    if rollout.deployment_id:
        return service.primary.id == rollout.deployment_id
    known = (rollout.service_deployment_arn, service.current_service_deployment)
    return None in known or known[0] == known[1]


def record_draining(rollout: Rollout, count: int) -> None:
    """Write the number of old tasks of a completed rollout, with a timeline entry when the last one is gone.

    Only a rollout that left old tasks is written. The caller opens the transaction.
    """
    tracked = Rollout.objects.filter(pk=rollout.pk, outcome__in=ROLLED_OUT, source_running__gt=0)
    if not tracked.update(source_running=count, last_checked_at=Now()) or count:
        return
    label = PlatformService(rollout.service).label
    message = f"{label}: no old task drains any more. If the validation has ended before, rerun the checks."
    record_event(rollout.upgrade, EventKind.VALIDATED, message, rollout=rollout)
