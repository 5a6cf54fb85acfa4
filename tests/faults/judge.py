"""Judges a run by the local AWS's own records. Only the portal calls it, so each write in its ledger is the portal's."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from deployments.models import Deployment
from portal.models import AuditEvent, Organization
from portal.models.notifications import NotificationDelivery
from tests.conftest import SERVICES
from tests.deployments.conftest import services_created
from tests.local_aws import LocalAws
from upgrades.models import Rollout, Upgrade, UpgradeEvent

OPEN = ("PENDING", "IN_PROGRESS")
# The verdict on a rollout for each end of its deployment in ECS.
VERDICTS = {"SUCCESSFUL": ("SUCCESS", "completed"), "ROLLBACK_SUCCESSFUL": ("FAILED", "rolled_back")}
CALLS_WITHOUT_EFFECT = 3  # after so many, a rollout ends as refused (docs/operations.md)
AUDITED = {
    "create": "deployment.created",
    "scale": "deployment.scaled",
    "stop": "deployment.stop_requested",
    "restart": "deployment.restarted",
    "kill": "deployment.killed",
}


@dataclass
class Findings:
    """What broke a promise, in words, by kind."""

    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def find_unsettled(local_aws: LocalAws) -> list[str]:
    """Return the upgrades that have not ended, deployments that are not as wanted in ECS, and messages not sent."""
    services = {each["name"]: each for each in local_aws.state()}
    return [
        *(f"{each} is {each.status}" for each in Upgrade.objects.filter(status__in=OPEN)),
        *(why for each in Deployment.objects.all() if (why := find_difference(each, services.get(each.service_name)))),
        *(f"{each} is {each.status}" for each in NotificationDelivery.objects.exclude(status="sent")),
    ]


def find_difference(row: Deployment, service: dict[str, Any] | None) -> str | None:
    """Return in which way the service in ECS differs from what is wanted and shown; None: in no way."""
    is_there = service is not None and service["status"] == "ACTIVE"
    desired = service["desired"] if service and is_there else 0
    expected = {"gone": ("killed", 0), "stopped": ("stopped", 0), "running": ("ready", row.replicas)}[row.wanted]
    was_not_created = row.status == "failed" and row.service_arn is None and not is_there
    is_as_wanted = (row.status, desired) == expected and is_there == (row.wanted != "gone")
    if was_not_created or (is_as_wanted and row.observed_generation == row.requested_generation):
        return None
    return f"{row.service_name} is {row.status} and should be {expected}; ECS: {service}; {row.check_error}"


def judge(local_aws: LocalAws, *, upgrades: set[str], deployments: set[str], messages: Counter[str]) -> Findings:
    """Compare accepted requests and received messages (by their ids) with the rows, and these with AWS's records."""
    findings = Findings()
    compare("upgrade", upgrades, set(Upgrade.objects.values_list("upgrade_id", flat=True)), findings)
    compare("deployment", deployments, {str(pk) for pk in Deployment.objects.values_list("pk", flat=True)}, findings)
    for organization in Organization.objects.exclude(deployment_stack=""):
        judge_rollouts(local_aws, organization, findings)
    for upgrade in Upgrade.objects.prefetch_related("rollouts"):
        judge_upgrade(upgrade, findings)
    for row in Deployment.objects.all():
        judge_deployment(local_aws, row, findings)
    judge_messages(messages, findings)
    return findings


def compare(what: str, accepted: set[str], rows: set[str], findings: Findings) -> None:
    findings.lost += [f"the accepted {what} {each} has no row" for each in accepted - rows]
    findings.doubled += [f"nobody asked for {what} {each}" for each in rows - accepted]


def judge_rollouts(local_aws: LocalAws, organization: Organization, findings: Findings) -> None:
    """Match the organization's rollouts to the deployments that UpdateService started, one to one."""
    calls = local_aws.ledger(action="UpdateService", cluster=organization.cluster, effect=True)
    names = {f"{organization.deployment_stack}-{service}-service" for service in SERVICES}
    started = Counter(
        call["service_deployment_arn"] for call in calls if call["deployment_id"] and call["service"] in names
    )
    ends = {
        each["arn"]: each["status"]
        for service in local_aws.deployments(str(organization.cluster)).values()
        for each in service["deployments"]
    }
    rollouts = list(Rollout.objects.filter(organization=organization).select_related("upgrade"))
    followed = Counter(each.service_deployment_arn for each in rollouts if each.service_deployment_arn)
    findings.doubled += [f"no rollout follows {arn}" for arn in (started - followed).elements()]
    findings.wrong += [f"{arn} was started by no call for its rollout" for arn in (followed - started).elements()]
    for rollout in rollouts:
        actual = (rollout.status, rollout.outcome)
        end = ends.get(str(rollout.service_deployment_arn))
        if rollout.phase != "done":
            continue  # found as unsettled
        if end is None and not is_explained(rollout):
            findings.wrong.append(f"{rollout} ended {actual} without a deployment: {rollout.error_message}")
        if end is not None and actual != VERDICTS.get(end):
            findings.wrong.append(f"{rollout} ended {actual}; its deployment is {end}")


def is_explained(rollout: Rollout) -> bool:
    """Return whether a rollout that started no deployment ended for a reason that a fault of this test gives."""
    if rollout.outcome == "refused":
        return rollout.attempts >= CALLS_WITHOUT_EFFECT
    earlier = rollout.upgrade.rollouts.filter(position__lt=rollout.position, status="FAILED")
    return (rollout.status, rollout.outcome, rollout.attempts) == ("FAILED", "not_attempted", 0) and earlier.exists()


def judge_upgrade(upgrade: Upgrade, findings: Findings) -> None:
    """Check that its status follows from its rollouts, and that each transition has one audit row and one entry."""
    statuses = {each.status for each in upgrade.rollouts.all()}
    expected = "SUCCESS" if statuses == {"SUCCESS"} else "PARTIAL" if "SUCCESS" in statuses else "FAILED"
    if not upgrade.is_open and upgrade.status != expected:
        findings.wrong.append(f"{upgrade} is {upgrade.status}, not {expected}")
    ended = int(not upgrade.is_open)
    audit = Counter(AuditEvent.objects.filter(subject=upgrade.upgrade_id).values_list("kind", flat=True))
    told = Counter(NotificationDelivery.objects.filter(subject=upgrade.upgrade_id).values_list("kind", flat=True))
    timeline = Counter(
        UpgradeEvent.objects.filter(upgrade=upgrade).exclude(kind="ecs").values_list("rollout_id", "kind")
    )
    expect(f"audit of {upgrade}", audit, {"upgrade.triggered": 1, "upgrade.ended": ended}, findings)
    expect(f"messages about {upgrade}", told, {"upgrade.started": 1, "upgrade.ended": ended}, findings)
    entries = {(None, "upgrade.triggered"): 1, (None, "upgrade.ended"): ended}
    for rollout in upgrade.rollouts.all():
        entries[rollout.pk, "rollout.started"] = int(bool(rollout.service_deployment_arn))
        entries[rollout.pk, "rollout.ended"] = int(rollout.phase == "done")
    expect(f"timeline of {upgrade}", timeline, entries, findings)


def expect(what: str, found: Counter[Any], expected: dict[Any, int], findings: Findings) -> None:
    findings.lost += [f"{what}: {kind} is missing" for kind, count in expected.items() if found[kind] < count]
    findings.doubled += [
        f"{what}: {kind} is there {found[kind]} times" for kind, count in expected.items() if found[kind] > count
    ]


def judge_deployment(local_aws: LocalAws, row: Deployment, findings: Findings) -> None:
    """Check that it was created once, and that each command has one event and one audit row."""
    if services_created(local_aws, row) > 1:
        findings.doubled.append(f"{row.service_name} was created more than once")
    events = list(row.events.order_by("sequence").values_list("sequence", "event_type", "actor"))
    if [sequence for sequence, _, _ in events] != list(range(1, row.events_count + 1)):
        findings.lost.append(f"{row.service_name} has events {events}, not {row.events_count}")
    if outside := [event for event in events if event[2] == "outside the portal"]:
        findings.wrong.append(f"{row.service_name}: {outside} were the portal's own changes")
    audit = Counter(AuditEvent.objects.filter(subject=str(row.pk)).values_list("kind", flat=True))
    commands = Counter(AUDITED[event_type] for _, event_type, _ in events if event_type in AUDITED)
    expect(f"audit of {row.service_name}", audit, {kind: commands[kind] for kind in AUDITED.values()}, findings)


def judge_messages(messages: Counter[str], findings: Findings) -> None:
    """Check that each recorded message arrived under its own id. It may arrive twice: the receiver knows it by its id."""
    recorded = {each.message_id for each in NotificationDelivery.objects.all()}
    findings.lost += [f"message {each} did not arrive" for each in recorded - set(messages)]
    findings.wrong += [f"message {each} was never recorded" for each in set(messages) - recorded]
