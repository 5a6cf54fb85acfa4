"""The `monitoring` row of the matrix: whether the services still run what an upgrade left, and since when.

One ECS read covers all services. As in the rollout, only the rollout's own deployment counts. Times are the database's.
"""

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from portal.aws import ecs
from portal.aws.errors import AwsError, AwsMissing, summarize_error
from portal.leases import Lease
from portal.templatetags.formatting import duration, last_part
from upgrades.checks.draining import Draining, count_draining, describe_draining, is_own_deployment
from upgrades.checks.probes import Finding
from upgrades.models import Rollout, UpgradeCheck, ValidationRun
from upgrades.states import CheckStatus, Outcome, PlatformService, not_supported

logger = logging.getLogger(__name__)

OBSERVE_SECONDS = 20
# A longer gap between two observations was not watched and does not count as steady.
LONGEST_GAP = timedelta(seconds=3 * OBSERVE_SECONDS)


@dataclass(frozen=True)
class Observation:
    """One observation of the services.

    `error`: set if AWS did not answer, so nothing was observed. `disturbance`: what is not steady, None if nothing.
    `wait`: what has to end before the steady time counts, None if nothing. `draining`: its tasks, by rollout.
    """

    services: dict[str, Any] = field(default_factory=dict)
    disturbance: str | None = None
    error: str | None = None
    wait: str | None = None
    draining: dict[int, Draining | None] = field(default_factory=dict)


def observe_services(lease: Lease[ValidationRun], completed: list[Rollout]) -> Observation:
    """Observe whether each completed service fully runs what this upgrade left. *Costs* one AWS call."""
    upgrade = lease.row.upgrade
    lease.renew()
    try:
        names = [rollout.service_name for rollout in completed]
        reading = ecs.describe_services(upgrade.aws_target, upgrade.cluster, names)
        found = {name: service for name in names if (service := reading.service(name))}
    except AwsMissing:
        found = {}
    except AwsError as error:
        logger.info("validation of %s: %s", upgrade, error)
        return Observation(error=summarize_error(error))
    disturbances = [find_disturbance(rollout, found.get(rollout.service_name)) for rollout in completed]
    services = {
        rollout.service: build_facts(found[rollout.service_name])
        for rollout in completed
        if rollout.service_name in found
    }
    waits = [find_wait(rollout, found.get(rollout.service_name)) for rollout in completed]
    return Observation(
        services,
        disturbance=next((each for each in disturbances if each), None),
        wait=" ".join(each for each in waits if each) or None,
        draining={rollout.pk: count_draining(rollout, found.get(rollout.service_name)) for rollout in completed},
    )


def find_disturbance(rollout: Rollout, service: ecs.Service | None) -> str | None:
    """Return a sentence on what is not as the rollout left it, None if everything is."""
    label = PlatformService(rollout.service).label
    if service is None or service.status != "ACTIVE":
        return f"{label}: the service no longer exists."
    if service.is_foreign:
        return f"{label}: it is {not_supported(service.controller)}."
    if service.task_definition != rollout.task_definition:
        return f"{label}: it runs {last_part(service.task_definition)}, not {last_part(rollout.task_definition)}."
    if not is_own_deployment(rollout, service):
        return f"{label}: it was deployed again outside this upgrade."
    if len(service.deployments) > 1 and not service.draining_count:
        return f"{label}: another deployment is in progress."
    if find_wait(rollout, service):
        failures = find_new_failures(rollout, service)
        said = f"{label}: {failures} of its new tasks failed since, and no circuit breaker counts them."
        return said if failures else None
    if service.running_count != service.desired_count or service.desired_count == 0:
        return f"{label}: {service.running_count} of {service.desired_count} tasks run."
    return None


def find_new_failures(rollout: Rollout, service: ecs.Service) -> int:
    """Return how many tasks of the rollout's deployment failed since it ended. After early success, no breaker counts."""
    failed = service.primary.failed_tasks if service.primary else 0
    return max(0, failed - (rollout.failed_tasks or 0))


def find_wait(rollout: Rollout, service: ecs.Service | None) -> str | None:
    """Return a sentence on what the row waits for, None if nothing. Early success is a success before all has moved."""
    if service is None:
        return None
    label = PlatformService(rollout.service).label
    if service.draining_count:
        return f"{label}: {describe_draining(service.draining_count)}. ECS may take up to two weeks."
    if service.is_daemon and service.desired_count == 0:
        return f"{label}: no container instance matches, so no task runs."
    is_starting = rollout.outcome == Outcome.COMPLETED_EARLY and service.running_count < service.desired_count
    if is_starting:
        counts = f"{service.running_count} of {service.desired_count} tasks run"
        return f"{label}: {counts}. ECS ended the rollout by early success and starts the others."
    return None


def build_facts(service: ecs.Service) -> dict[str, Any]:
    return {
        "running": service.running_count,
        "desired": service.desired_count,
        **({"draining": service.draining_count} if service.draining_count else {}),
        "task_definition": last_part(service.task_definition),
        "deployment_id": service.primary.id if service.primary else None,
    }


def judge_observation(
    lease: Lease[ValidationRun], check: UpgradeCheck, observation: Observation
) -> tuple[datetime | None, Finding]:
    """Return since when the services are steady, and the row's finding. Times are the database's.

    An observation that AWS did not answer changes neither. Unwatched time does not count. A disturbance restarts the count,
    and so does a wait, which is none: after early success, the count starts when only the new version serves.
    """
    since, now = lease.row.steady_since, lease.now
    needed = timedelta(seconds=settings.UPGRADE_STEADY_SECONDS)
    facts: dict[str, Any] = {
        "needed_seconds": settings.UPGRADE_STEADY_SECONDS,
        "disturbances": count_disturbances(lease.row, check),
    }
    if observation.error:
        watched = check.checked_at - since if since and check.checked_at else None
        detail = f"{progress(watched, needed)} AWS did not answer the last check: {observation.error}"
        return since, Finding(CheckStatus(check.status), detail, {**check.evidence, **facts})
    if observation.disturbance:
        facts = {
            **facts,
            "disturbances": facts["disturbances"] + 1,
            "services": observation.services,
            "steady_seconds": 0,
        }
        return None, Finding(CheckStatus.FAIL, f"{observation.disturbance} {progress(None, needed)}", facts)
    if observation.wait:
        facts = {**facts, "services": observation.services, "steady_seconds": 0}
        return None, Finding(CheckStatus.UNKNOWN, f"{observation.wait} {progress(None, needed)}", facts)
    if since is None:
        since = now
    elif check.checked_at and now - check.checked_at > LONGEST_GAP:
        since += now - check.checked_at - timedelta(seconds=OBSERVE_SECONDS)
    steady = now - since
    facts = {**facts, "services": observation.services, "steady_seconds": int(steady.total_seconds())}
    if steady >= needed:
        detail = f"Steady for {duration(steady.total_seconds())}: every completed service runs what the upgrade left."
        return since, Finding(CheckStatus.PASS, detail, facts)
    return since, Finding(CheckStatus.UNKNOWN, progress(steady, needed), facts)


def progress(steady: timedelta | None, needed: timedelta) -> str:
    so_far = duration(steady.total_seconds() if steady else 0)
    return f"Steady for {so_far} of {duration(needed.total_seconds())}."


def count_disturbances(run: ValidationRun, check: UpgradeCheck) -> int:
    return int(check.evidence.get("disturbances", 0)) if run.found(check) else 0
