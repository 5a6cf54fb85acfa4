"""Plans the rollback of an ended upgrade: for each service, whether it can be rolled back, or why not.

A rollback is a new upgrade, carried out by the same engine. It rolls each completed service back to the task definition
that the upgrade recorded as the previous one. If ECS does not answer, a line is `unknown`. It may still be rolled back:
the engine reads ECS again before it changes anything.
"""

import logging
from dataclasses import dataclass, replace
from functools import partial

from django.db import models

from portal.aws import ecs
from portal.aws.bulkhead import call_shared
from portal.aws.errors import AwsError, AwsRefused, summarize_error
from portal.models import Organization
from portal.templatetags.formatting import last_part
from upgrades.inventory.diffs import Diff, read_diffs
from upgrades.inventory.ecs_services import RunningService, describe_running_services
from upgrades.inventory.images import RequestedImage, read_recorded_names
from upgrades.inventory.running import LONGEST_WAIT_SECONDS
from upgrades.models import MAX_VERSION_LENGTH, Rollout, Upgrade
from upgrades.states import ROLLED_OUT, Outcome

logger = logging.getLogger(__name__)

PREVIOUS = "previous"


class Can(models.TextChoices):
    """Answers to whether a service can be rolled back."""

    YES = "yes", "Will be rolled back"
    UNKNOWN = "unknown", "Not known: ECS did not answer"
    NO = "no", "Stays unchanged"


@dataclass(frozen=True)
class Line:
    """One service of the upgrade.

    `why`: why it cannot be rolled back, or what is not known. `now`: the running state, None if ECS did not report it.
    `diff` is filled by with_diffs.
    """

    rollout: Rollout
    can: Can
    why: str = ""
    now: RunningService | None = None
    diff: Diff | None = None

    @property
    def service(self) -> str:
        return self.rollout.service

    @property
    def is_going(self) -> bool:
        return self.can != Can.NO

    @property
    def moved_to(self) -> str | None:
        """Return the digest that would run now if the earlier revision's tag has moved to another image, else None."""
        after, ran = self.diff.after if self.diff else None, self.rollout.from_digest
        return after.digest if after and after.digest and ran and after.digest != ran else None


@dataclass(frozen=True)
class Plan:
    """The plan of a rollback. `lines`: one for each service of the upgrade, in rolling order.

    `error`: why ECS could not be read, or None. `blocker`: the open upgrade that is rolling one of the services, or None.
    """

    upgrade: Upgrade
    lines: list[Line]
    error: str | None = None
    blocker: Upgrade | None = None

    @property
    def going(self) -> list[Line]:
        """Return the lines of the services that would be rolled back."""
        return [line for line in self.lines if line.is_going]

    @property
    def services(self) -> list[str]:
        return [line.service for line in self.going]

    @property
    def is_wide(self) -> bool:
        """Return whether several services change, so that the organization's slug must be typed."""
        return len(self.going) > 1

    @property
    def version(self) -> str:
        """Return the earlier version if it is the same for all services, else `previous`."""
        versions = {line.rollout.from_version or PREVIOUS for line in self.going}
        version = versions.pop() if len(versions) == 1 else PREVIOUS
        return version if len(version) <= MAX_VERSION_LENGTH else PREVIOUS

    @property
    def refusal(self) -> str | None:
        """Return why nothing can be rolled back, with one sentence per service, or None if something can."""
        if self.upgrade.is_open:
            return f"{self.upgrade.upgrade_id} has not ended. Stop it to let ECS roll it back."
        if self.blocker:
            return f"{self.blocker.upgrade_id} is rolling its services now. Wait for it or stop it."
        if self.going:
            return None
        reasons = " ".join(f"{line.rollout.get_service_display()}: {line.why}" for line in self.lines)
        return f"Nothing of {self.upgrade.upgrade_id} can be rolled back. {reasons}"


def services_that_advanced(upgrade: Upgrade) -> list[str]:
    """Return the services that a rollback may affect, in rolling order. Reads only the record, not ECS."""
    return [rollout.service for rollout in upgrade.rollouts.all() if find_record_refusal(rollout) is None]


def plan_rollback(upgrade: Upgrade) -> Plan:
    """Plan the rollback: read from ECS what runs and whether the earlier revisions are still active.

    Never raises AwsError. Waits for at most twice LONGEST_WAIT_SECONDS.
    Costs one DescribeServices, one DescribeTaskDefinition for each service that advanced, two queries, and one query for
    each service that runs something else.
    """
    lines = [Line(rollout, Can.NO, find_record_refusal(rollout) or "") for rollout in upgrade.rollouts.all()]
    if upgrade.is_open or all(line.why for line in lines):
        return Plan(upgrade, lines)
    rolling = Rollout.objects.in_use(upgrade.organization, [line.service for line in lines if not line.why]).first()
    if rolling:
        why = f"{rolling.upgrade.upgrade_id} has not ended."
        return Plan(upgrade, [replace(line, why=line.why or why) for line in lines], blocker=rolling.upgrade)
    services: dict[str, RunningService] = {}
    usable: dict[str, bool] = {}
    error = None
    try:
        services = read_services(upgrade)
        usable = read_revisions(upgrade, [str(line.rollout.previous_task_definition) for line in lines if not line.why])
    except AwsError as failed:
        logger.warning("rollback of %s planned without ECS: %s", upgrade.upgrade_id, failed)
        error = summarize_error(failed)
    return Plan(upgrade, [line if line.why else judge_line(line.rollout, services, usable) for line in lines], error)


def with_diffs(plan: Plan) -> Plan:
    """Add to each line the differences that the rollback would make, for the page."""
    earlier: dict[str, RequestedImage | str] = {
        line.service: str(line.rollout.previous_task_definition) for line in plan.lines if line.can == Can.YES
    }
    diffs = read_diffs(plan.upgrade.organization, earlier)
    return replace(plan, lines=[replace(line, diff=diffs.get(line.service)) for line in plan.lines])


def find_record_refusal(rollout: Rollout) -> str | None:
    """Return why the record rules out a rollback of this service, or None. Does not read ECS."""
    upgrade = rollout.upgrade
    organization = upgrade.organization
    if rollout.outcome not in ROLLED_OUT:
        label = Outcome(rollout.outcome).label if rollout.outcome else rollout.get_status_display()
        return f"it did not advance ({label}), so there is nothing to roll back."
    if not rollout.previous_task_definition or not rollout.task_definition:
        return "its earlier task definition was not recorded."
    if rollout.previous_task_definition == rollout.task_definition:
        name = last_part(rollout.task_definition)
        return f"it was redeployed with the same task definition ({name}), so there is no earlier one to go back to."
    if (upgrade.cluster, upgrade.region) != (organization.cluster, organization.deployment_region):
        return (
            f"it was rolled in cluster {upgrade.cluster}, {upgrade.region}. {organization.name} now uses another one."
        )
    return None


def read_services(upgrade: Upgrade) -> dict[str, RunningService]:
    """Read what runs now, without the cache, because a person decides by it. Raises AwsError."""
    organization = upgrade.organization
    call = partial(describe_running_services, organization, upgrade.cluster, read_recorded_names(organization))
    key = f"rollback:{upgrade.pk}"
    rows = call_shared(organization.aws_target, "ecs:DescribeServices", key, call, seconds=LONGEST_WAIT_SECONDS)
    return {row.service: row for row in rows}


def read_revisions(upgrade: Upgrade, arns: list[str]) -> dict[str, bool]:
    """Read whether each revision is still active. Leaves out those that ECS did not answer for. Raises AwsError."""

    def ask() -> dict[str, bool]:
        return {arn: is_usable(upgrade.organization, arn) for arn in dict.fromkeys(arns)}

    target, key = upgrade.organization.aws_target, f"rollback:{upgrade.pk}:{arns}"
    return call_shared(target, "ecs:DescribeTaskDefinition", key, ask, seconds=LONGEST_WAIT_SECONDS)


def is_usable(organization: Organization, arn: str) -> bool:
    """Read without the cache whether a revision is active: it never changes but can be deregistered. Raises AwsError."""
    try:
        return ecs.describe_task_definition(organization.aws_target, arn).is_active
    except AwsRefused:
        return False  # deleted: ECS no longer knows it


def judge_line(rollout: Rollout, services: dict[str, RunningService], usable: dict[str, bool]) -> Line:
    now = services.get(rollout.service)
    earlier = str(rollout.previous_task_definition)
    why = find_ecs_refusal(rollout, now) if now else None
    if why is None and usable.get(earlier) is False:
        why = f"{last_part(earlier)} was deregistered in ECS, so it cannot be rolled back to."
    if why:
        return Line(rollout, Can.NO, why, now)
    if now is None or earlier not in usable:
        return Line(rollout, Can.UNKNOWN, "ECS did not report whether it still runs what this upgrade left.", now)
    return Line(rollout, Can.YES, "", now)


def find_ecs_refusal(rollout: Rollout, now: RunningService) -> str | None:
    """Return why the service must stay unchanged according to ECS, or None."""
    if now.state == "missing":
        return f"{rollout.service_name} no longer exists in {rollout.upgrade.cluster}."
    if now.not_supported:
        return f"{rollout.service_name} is {now.not_supported}."
    if now.state == "disabled":
        return f"{rollout.service_name} is disabled (desired count is 0)."
    if now.task_definition == rollout.previous_task_definition:
        return f"it already runs {last_part(now.task_definition)}. {describe_who_since(rollout, now)}"
    if now.task_definition != rollout.task_definition:
        runs = last_part(now.task_definition) + (f" ({now.version})" if now.version else "")
        left = last_part(rollout.task_definition)
        return f"it runs {runs} now, not {left}, which this upgrade left. {describe_who_since(rollout, now)}"
    return None


def describe_who_since(rollout: Rollout, now: RunningService) -> str:
    later = (
        Rollout.objects.filter(
            organization=rollout.organization_id,
            service=rollout.service,
            task_definition=now.task_definition,
            started_at__gt=rollout.completed_at,
        )
        .order_by("-started_at", "-id")
        .select_related("upgrade")
        .first()
    )
    return f"{later.upgrade.upgrade_id} rolled it since." if later else "It was deployed outside the portal since."
