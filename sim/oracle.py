"""Judges a world by what AWS and the database recorded. Uses no code of `upgrades` or `deployments` but their tables.

Invariants: every accepted request has one row. No attempt takes effect twice. A service has one open rollout at most.
Terminal states never change. The verdict equals the local AWS's own record of that very deployment. A worker without the
lease writes nothing. One audit row and one timeline entry belong to each transition. Everything ends.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from django.conf import settings

from deployments.models import Deployment, DeploymentEvent
from portal.models import AuditEvent
from portal.sandbox.records import Service, ServiceDeployment, ServiceKey
from portal.sandbox.sts import OWN_ACCOUNT
from sim.clock import CLOCK
from sim.journal import Write, read_writes
from sim.network import WRITE_SECONDS, Call
from sim.plan import BY_OPERATORS, ON_THE_WAY, SERVICES, TO_WORKERS
from sim.world import REGION, TEND_SECONDS, World
from upgrades.models import Decision, Rollout, Upgrade, UpgradeEvent

ENDED = ("SUCCESS", "FAILED", "PARTIAL", "SKIPPED")
GIVES_UP_AFTER = 3  # calls without effect, as documented (docs/operations.md)
# The Date header of AWS has no fractions, and the engine allows two seconds more.
AMBIGUOUS_SECONDS = 4.0
# A read of ECS may be this much older than the verdict that it led to.
READ_SECONDS = 120.0

Verdict = tuple[str, str | None]
Json = dict[str, Any]

FAILED_MISSING: Verdict = ("FAILED", "service_missing")


@dataclass
class Findings:
    """Broken invariants by kind, and the outcomes for the figures."""

    broken: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    doubled: int = 0
    lost: int = 0
    timed_out: int = 0

    def add(self, kind: str, what: str) -> None:
        if kind in ("wrong", "doubled", "lost", "timed_out"):
            setattr(self, kind, getattr(self, kind) + 1)
        self.broken.append(f"{kind}: {what}")


def judge(world: World) -> Findings:
    findings = Findings()
    if world.scheduler.broken:  # the world ended there
        kind, _, what = world.scheduler.broken.partition(": ")
        findings.add(kind, what)
        return findings
    upgrades = list(Upgrade.objects.filter(organization=world.organization).order_by("id"))
    rollouts = list(
        Rollout.objects.filter(organization=world.organization)
        .select_related("upgrade")
        .order_by("upgrade_id", "position")
    )
    writes = read_writes(world.monitor)
    check_requests(world, upgrades, findings)
    check_stops(world, rollouts, writes, findings)
    check_records(world, upgrades, rollouts, findings)
    check_overlaps(rollouts, findings)
    for rollout in rollouts:
        check_rollout(world, rollout, rollouts, findings)
    check_overdue(world, rollouts, writes, findings)
    check_decisions(world, rollouts, findings)
    for upgrade in upgrades:
        check_upgrade(upgrade, [each for each in rollouts if each.upgrade_id == upgrade.pk], findings)
    check_agents(world, findings)
    return findings


# Requests and records


def check_requests(world: World, upgrades: list[Upgrade], findings: Findings) -> None:
    rows = {upgrade.upgrade_id for upgrade in upgrades}
    accepted = [asked for asked in world.asked if asked.upgrade_id]
    for asked in accepted:
        if asked.upgrade_id not in rows:
            findings.add("lost", f"request accepted as {asked.upgrade_id} has no row")
    if len(rows) > len({asked.upgrade_id for asked in accepted}):
        findings.add("doubled", "a row belongs to no accepted request")
    by_key: dict[str, set[str | None]] = {}
    for asked in accepted:
        if asked.key:
            by_key.setdefault(asked.key, set()).add(asked.upgrade_id)
    for asked in world.asked:
        may_repeat = asked.refusal != "not_found" or world.may_act()  # who may not act any more finds nothing
        earlier = [each for each in accepted if each.key == asked.key and each.answered_at < asked.answered_at]
        if asked.key and asked.refusal and may_repeat and earlier:
            findings.add("wrong", f"{asked.key} was refused ({asked.refusal}) after it had been accepted")
    for key, ids in by_key.items():
        if len(ids) > 1:
            findings.add("doubled", f"{key} was accepted as {sorted(map(str, ids))}")


def check_stops(world: World, rollouts: list[Rollout], writes: list[Write], findings: Findings) -> None:
    """A worker that claims a rollout after a stop has been accepted does not call UpdateService."""
    by_id = {rollout.pk: rollout for rollout in rollouts}
    for call in world.network.calls:
        rollout = by_id.get(call.subject)
        if call.action != "UpdateService" or rollout is None or rollout.upgrade_id not in world.stopped_at:
            continue
        claims = [each.at for each in writes if each.kind == "claimed" and each.rollout_id == rollout.pk]
        if max(at for at in claims if at <= call.sent_at) > world.stopped_at[rollout.upgrade_id]:
            name = f"{rollout.service} of {rollout.upgrade.upgrade_id}"
            findings.add("wrong", f"{name} was updated although it was claimed after the upgrade had been stopped")


def check_records(world: World, upgrades: list[Upgrade], rollouts: list[Rollout], findings: Findings) -> None:
    """Check the audit rows and timeline entries of each transition."""
    audit = Counter(AuditEvent.objects.filter(organization=world.organization).values_list("subject", "kind"))
    events: Counter[Any] = Counter(
        UpgradeEvent.objects.filter(organization=world.organization)
        .exclude(kind="ecs")
        .values_list("upgrade_id", "rollout_id", "kind")
    )
    for upgrade in upgrades:
        started = "upgrade.rollback_triggered" if upgrade.kind == "rollback" else "upgrade.triggered"
        stopped, ended = int(upgrade.stop_requested_at is not None), int(upgrade.status in ENDED)
        expected = {started: 1, "upgrade.stop_requested": stopped, "upgrade.ended": ended}
        for kind, count in expected.items():
            if audit[upgrade.upgrade_id, kind] != count:
                findings.add("records", f"{upgrade.upgrade_id}: {audit[upgrade.upgrade_id, kind]} audit rows {kind}")
        expected = {"upgrade.triggered": 1, "upgrade.stop_requested": stopped, "upgrade.ended": ended}
        for kind, count in expected.items():
            if events[upgrade.pk, None, kind] != count:
                found = events[upgrade.pk, None, kind]
                findings.add("records", f"{upgrade.upgrade_id}: {found} timeline entries {kind}, not {count}")
    for rollout in rollouts:
        is_known = rollout.deployment_id is not None or rollout.service_deployment_arn is not None
        expected = {"rollout.ended": int(rollout.phase == "done"), "rollout.started": int(is_known)}
        for kind, count in expected.items():
            found = events[rollout.upgrade_id, rollout.pk, kind]
            if found != count:
                findings.add("records", f"rollout {rollout.pk}: {found} timeline entries {kind}, not {count}")


def check_overlaps(rollouts: list[Rollout], findings: Findings) -> None:
    for service in SERVICES:
        own = [each for each in rollouts if each.service == service]
        for earlier, later in pairwise(own):
            if earlier.completed_at is None or earlier.completed_at > later.upgrade.created_at:
                findings.add("wrong", f"rollouts {earlier.pk} and {later.pk} of {service} were open at the same time")


def check_upgrade(upgrade: Upgrade, rollouts: list[Rollout], findings: Findings) -> None:
    statuses = {each.status for each in rollouts if each.status != "SKIPPED"}
    if any(each.phase != "done" for each in rollouts):
        return  # already found
    expected = "SUCCESS" if statuses == {"SUCCESS"} else "PARTIAL" if "SUCCESS" in statuses else "FAILED"
    if not statuses:
        expected = upgrade.status
    if upgrade.status != expected or upgrade.completed_at is None:
        findings.add("wrong", f"{upgrade.upgrade_id} is {upgrade.status}, not {expected}")


# Verdicts


@dataclass
class Evidence:
    """What AWS knows about one rollout: the portal's calls for it, and the deployment that they started."""

    world: World
    rollout: Rollout
    calls: list[Call]
    record: ServiceDeployment | None
    ended_at: float

    def happened(self, *kinds: str) -> bool:
        return any(
            self.world.facts.before(kind, service, at=self.ended_at)
            for kind in kinds
            for service in ("", self.rollout.service)
        )

    @property
    def first_call_at(self) -> float:
        return self.calls[0].at if self.calls else self.ended_at


def check_rollout(world: World, rollout: Rollout, rollouts: list[Rollout], findings: Findings) -> None:
    name = f"{rollout.service} of {rollout.upgrade.upgrade_id}"
    calls = [call for call in world.network.calls if call.subject == rollout.pk and call.action == "UpdateService"]
    started = [call for call in calls if call.started]
    if len(started) > 1:
        findings.add("doubled", f"{name}: its calls started {[call.started for call in started]}")
    if rollout.phase != "done":
        findings.add("lost", f"{name} is still {rollout.phase} at +{CLOCK.seconds:.0f} s")
        return
    findings.outcomes[str(rollout.outcome)] += 1
    record = world.network.records.get(str(started[0].started)) if started else None
    ended_at = rollout.completed_at.timestamp() if rollout.completed_at else 0.0
    evidence = Evidence(world, rollout, calls, record, ended_at)
    actual: Verdict = (rollout.status, rollout.outcome)
    check_obedience(evidence, rollouts, findings)
    if rollout.outcome == "timed_out" and not has_right_to_time_out(evidence):
        findings.add("timed_out", f"{name} timed out at {rollout.completed_at}, its deadline is {rollout.deadline_at}")
    if started and is_ambiguous(evidence):
        return
    adopted = None if started else find_adopted(evidence)
    if adopted:
        evidence.record = adopted
        expected = set(judge_started(evidence))
        if actual not in expected:
            findings.add("wrong", f"{name} followed another's deployment and ended {actual}, not {expected}")
    elif started:
        expected = set(judge_started(evidence))
        if started[0].started != rollout.service_deployment_arn and rollout.service_deployment_arn:
            findings.add("wrong", f"{name} was judged by {rollout.service_deployment_arn}, not {started[0].started}")
        if actual not in expected:
            findings.add("wrong", f"{name} ended {actual}, not {expected}. {describe(evidence)}")
    elif not is_explained(evidence, rollouts):
        findings.add("wrong", f"{name} ended {actual} without a deployment. {describe(evidence)}")


def is_ambiguous(evidence: Evidence) -> bool:
    """Return whether nothing in ECS distinguishes the rollout's deployment from one that an outsider started.

    It has the same task definition and is not much older than the call, the reads did not show it before the call, and
    the reply was lost. The rollout then says that several deployments started (docs/simulation.md, limits).
    """
    rollout, world = evidence.rollout, evidence.world
    service = world.find_service(rollout.service)
    arn = rollout.service_deployment_arn
    if service is None:
        return False
    followed = next((each for each in service.service_deployments if each.arn == arn), None)
    if followed is None:
        return arn is None and is_hidden(evidence, service)
    if arn == (rollout.baseline or {}).get("service_deployment"):
        return False
    is_same = service.revisions[followed.target_revision_arn].task_definition == rollout.task_definition
    is_near = any(call.sent_at - AMBIGUOUS_SECONDS <= followed.created_at <= call.at for call in evidence.calls)
    return is_same and is_near and "Several deployments" in (rollout.attribution_note or "")


def find_adopted(evidence: Evidence) -> ServiceDeployment | None:
    """Return the outsider's deployment that the rollout followed, because its own call was lost before it had an effect.

    It has the same task definition and is later than the read before the call, so nothing in ECS distinguishes the two.
    """
    rollout = evidence.rollout
    service = evidence.world.find_service(rollout.service)
    if service is None or not (rollout.service_deployment_arn or rollout.deployment_id):
        return None
    asked_at = datetime.fromisoformat(rollout.baseline["answered_at"]).timestamp()
    return next(
        (
            each
            for each in service.service_deployments
            if rollout.service_deployment_arn in (each.arn, None)
            and each.created_at >= asked_at - AMBIGUOUS_SECONDS
            and service.revisions[each.target_revision_arn].task_definition == rollout.task_definition
        ),
        None,
    )


def is_hidden(evidence: Evidence, service: Service) -> bool:
    """Return whether an outsider's same deployment replaced the rollout's own before the portal could read either.

    The reply was lost and AWS denies the list of service deployments: DescribeServices shows only the outsider's.
    """
    own, called_at = evidence.record, evidence.first_call_at
    if own is None or own.status != "STOPPED" or not evidence.happened("denied"):
        return False
    return any(
        service.revisions[each.target_revision_arn].task_definition == evidence.rollout.task_definition
        for each in service.service_deployments
        if called_at < each.created_at <= called_at + WRITE_SECONDS and each.arn != own.arn
    )


def check_obedience(evidence: Evidence, rollouts: list[Rollout], findings: Findings) -> None:
    """Nothing is called after a failure of an earlier service, and a stop reaches ECS."""
    world, rollout = evidence.world, evidence.rollout
    name = f"{rollout.service} of {rollout.upgrade.upgrade_id}"
    failed = [
        each
        for each in rollouts
        if each.upgrade_id == rollout.upgrade_id and each.position < rollout.position and each.status == "FAILED"
    ]
    if evidence.calls and any(each.attempts or each.outcome != "service_missing" for each in failed):
        findings.add("wrong", f"{name} was updated although an earlier service had failed")
    stopped_at = rollout.upgrade.stop_requested_at.timestamp() if rollout.upgrade.stop_requested_at else None
    if stopped_at is None:
        return
    disturbing = (*ON_THE_WAY, *TO_WORKERS, *BY_OPERATORS)
    is_calm = not world.plan.standing and not any(each.kind in disturbing for each in world.plan.happenings)
    record = evidence.record
    if record is None or not is_calm:
        return
    began = (record.rollback or {}).get("startedAt") or record.finished_at or evidence.ended_at
    stops = [call for call in world.network.calls if call.action == "StopServiceDeployment"]
    if began > stopped_at + 100 and not any(call.subject == rollout.pk for call in stops):
        findings.add("wrong", f"{name} was never stopped, although a person had asked for it")


def check_overdue(world: World, rollouts: list[Rollout], writes: list[Write], findings: Findings) -> None:
    """A rollout is overdue only after its base, its bake and the time that it waited for decisions."""
    by_id = {rollout.pk: rollout for rollout in rollouts}
    shape = world.plan.shape
    for write in writes:
        rollout = by_id.get(write.rollout_id)
        if write.kind != "overdue" or rollout is None or rollout.position or not rollout.service_deployment_arn:
            continue
        at, since = write.at, rollout.upgrade.created_at.timestamp()
        waited = TEND_SECONDS * sum(since <= moment <= at for moment in world.waits.get(rollout.service, []))
        bake = 0 if shape.strategy in ("ROLLING", "EARLY_BLOCKING", "EARLY_DEFERRED") else shape.bake_minutes * 60
        least = settings.UPGRADE_DEADLINE_SECONDS + bake + max(0.0, waited - 2 * TEND_SECONDS)
        if at - since < least - 2 * TEND_SECONDS and not world.facts.before("denied", at=at):
            findings.add("wrong", f"{rollout.service} was overdue after {at - since:.0f} s, not after {least:.0f} s")


def check_decisions(world: World, rollouts: list[Rollout], findings: Findings) -> None:
    """One row for each pause that a person's decision was accepted for, and one effect of it at most, at that pause."""
    rows = {(row.rollout_id, row.hook_id): row for row in Decision.objects.filter(organization=world.organization)}
    accepted = {(each.rollout_id, each.hook_id): each.action for each in world.decided if each.is_accepted}
    if {key: row.action.upper() for key, row in rows.items()} != accepted:
        findings.add("lost", f"decisions {sorted(accepted.items())} were accepted, but {sorted(rows)} are recorded")
    audited = AuditEvent.objects.filter(organization=world.organization, kind="upgrade.decided").count()
    if audited != len(rows):
        findings.add("records", f"{len(rows)} decisions, but {audited} audit rows about them")
    calls = [call for call in world.network.calls if call.action == "ContinueServiceDeployment"]
    arns = {rollout.pk: rollout.service_deployment_arn for rollout in rollouts}
    for call in calls:
        row = rows.get((call.subject, str(call.params.get("hookId"))))
        if row is None or row.action.upper() != call.params.get("action"):
            findings.add("wrong", f"{call.params} was sent for rollout {call.subject}, but nobody decided it")
        elif call.params.get("serviceDeploymentArn") != arns[call.subject]:
            findings.add("wrong", f"{call.params} was sent for rollout {call.subject}, which is {arns[call.subject]}")
    effects = Counter((call.subject, str(call.params.get("hookId"))) for call in calls if call.has_effect)
    for (pk, hook), count in effects.items():
        if count > 1:
            findings.add("doubled", f"the decision of rollout {pk} at {hook} took effect {count} times")
    # A worker that stands still with the request in its hands sends it when the deployment may have ended otherwise.
    is_calm = not any(each.kind in (*ON_THE_WAY, *TO_WORKERS) for each in world.plan.happenings)
    for key, row in rows.items():
        if row.ended_at is not None and row.error is None and is_calm and not effects[key]:
            findings.add("lost", f"the decision of rollout {key[0]} at {key[1]} was not taken by ECS")


def describe(evidence: Evidence) -> str:
    record, rollout = evidence.record, evidence.rollout
    truth = f"ECS: {record.status} {record.status_reason} finished {record.finished_at}" if record else "ECS: nothing"
    return f"{truth}; said: {rollout.error_message or rollout.rollout_reason}"


def has_right_to_time_out(evidence: Evidence) -> bool:
    """Return whether the deadline had passed, and ECS could not be asked about a deployment that it has open."""
    deadline = evidence.rollout.deadline_at
    is_past = deadline is not None and evidence.ended_at >= deadline.timestamp()
    return is_past and (evidence.record is None or evidence.happened("denied", "deletes", "recreates"))


def judge_started(evidence: Evidence) -> Iterator[Verdict]:
    """Yield the verdicts that are right for a rollout whose call started a deployment; mostly one."""
    record, ended_at = evidence.record, evidence.ended_at
    if record is None:
        return
    is_deleted = evidence.happened("deletes", "recreates")
    if is_deleted:
        yield FAILED_MISSING
    if record.finished_at is None or record.finished_at > ended_at:
        if has_right_to_time_out(evidence):
            yield ("FAILED", "timed_out")
        return
    # DescribeServices says how a deployment ended for rolling ones only.
    # To find the others, their ARN must be known: a lost reply has none, and the list may be denied.
    standing = evidence.world.plan.standing
    is_unknown = standing == "no_list" and not evidence.rollout.service_deployment_arn
    is_unreadable = (standing == "no_service_deployments" or is_unknown) and record.shifts_traffic
    if has_right_to_time_out(evidence) and (is_unreadable or record.finished_at > ended_at - READ_SECONDS):
        yield ("FAILED", "timed_out")
    was_asked_for = "user request" in str((record.rollback or {}).get("reason", ""))
    if record.status == "SUCCESSFUL":
        is_early = bool((record.configuration.get("earlySuccessCriteria") or {}).get("enable"))
        if is_early:
            yield ("SUCCESS", "completed_early")
        if not is_early or evidence.happened("disables"):
            yield ("SUCCESS", "completed")
    elif record.status == "ROLLBACK_SUCCESSFUL":
        is_own_stop = was_asked_for and is_stopped_by_portal(evidence)
        yield ("FAILED", "stopped_by_user" if is_own_stop else "rolled_back")
        if was_asked_for and may_have_been_decided(evidence):
            yield ("FAILED", "stopped_by_user")
    elif record.status == "ROLLBACK_FAILED":
        yield ("FAILED", "rollback_failed")
    else:
        yield from judge_stopped(evidence, record)


def judge_stopped(evidence: Evidence, record: ServiceDeployment) -> Iterator[Verdict]:
    if record.alarm_status == "TRIGGERED":
        yield ("FAILED", "alarm")
    elif record.breaker_status == "TRIGGERED":
        yield ("FAILED", "circuit_breaker")
    elif "No earlier completed revision" in record.status_reason:
        yield ("FAILED", "stopped_by_user" if is_stopped_by_portal(evidence) else "stopped")
    elif "deleted" in record.status_reason:
        yield FAILED_MISSING
        if evidence.happened("recreates"):
            yield ("FAILED", "superseded")
            yield ("FAILED", "stopped")
    else:
        yield ("FAILED", "superseded")


def is_stopped_by_portal(evidence: Evidence) -> bool:
    """Return whether the portal stopped this deployment for a person, or was the first to roll it back at a pause.

    ECS accepts a stop alike while an outsider's is under way, so that both may have stopped it.
    """
    calls = evidence.world.network.calls
    own = [each for each in calls if each.subject == evidence.rollout.pk and each.action == "StopServiceDeployment"]
    if any(each.has_effect for each in own):
        return True
    record = evidence.record
    rollbacks = [
        entry
        for entry in evidence.world.sandbox.ledger.entries
        if (entry["action"] == "StopServiceDeployment" or entry["parameters"].get("action") == "ROLLBACK")
        and entry["effect"]
        and record is not None
        and entry["parameters"]["serviceDeploymentArn"] == record.arn
    ]
    return bool(rollbacks) and "outsider" not in rollbacks[0]["principal"]


def may_have_been_decided(evidence: Evidence) -> bool:
    """Return whether a person decided to roll back, and the portal cannot know whether the decision was lost."""
    world, pk = evidence.world, evidence.rollout.pk
    is_disturbed = any("ContinueServiceDeployment" in each.actions for each in world.plan.happenings)
    decided = [each for each in world.decided if each.rollout_id == pk and each.action == "ROLLBACK"]
    return is_disturbed and any(each.is_accepted for each in decided)


def is_explained(evidence: Evidence, rollouts: list[Rollout]) -> bool:
    """Return whether a rollout without a deployment of its own ended for a reason that really existed."""
    rollout, calls = evidence.rollout, evidence.calls
    upgrade = rollout.upgrade
    earlier_failed = any(
        each.status == "FAILED"
        for each in rollouts
        if each.upgrade_id == rollout.upgrade_id and each.position < rollout.position
    )
    has_outside_deployment = evidence.happened("deploys", "deploys_other", "recreates")
    match rollout.status, rollout.outcome:
        case "SUCCESS", "no_change":
            return not upgrade.force_new_deployment and not any(call.has_effect for call in calls)
        case "SKIPPED", "disabled":
            return evidence.happened("disables")
        case "FAILED", "not_attempted":
            is_stopped = upgrade.stop_requested_at is not None
            return is_stopped or earlier_failed or evidence.happened("member_removed", "suspended")
        case "FAILED", "service_missing":
            return evidence.happened("deletes", "recreates", "cluster_missing")
        case "FAILED", "access_denied":
            return evidence.happened("denied")
        case "FAILED", "refused":
            last = calls[-1].error if calls else None
            is_final = last in ("InvalidParameterException", "ClientException", "ServiceNotActiveException")
            return is_final or rollout.attempts >= GIVES_UP_AFTER or evidence.happened("expired")
        case "FAILED", "superseded":
            return rollout.attempts > 0 and has_outside_deployment
        case "FAILED", "changed_since":
            return upgrade.kind == "rollback" and has_outside_deployment
        case "FAILED", "timed_out":
            return has_right_to_time_out(evidence)
    return False


# Deployments of agents


def check_agents(world: World, findings: Findings) -> None:
    """Check that each deployment was created once and, when everything has settled, is as it is wanted."""
    deployments = list(Deployment.objects.filter(organization=world.organization))
    created = Counter(
        str(call.params.get("serviceName"))
        for call in world.network.calls
        if call.action == "CreateService" and call.started
    )
    for row in deployments:
        name = f"deployment {row.service_name}"
        if created[row.service_name] > 1:
            findings.add("doubled", f"{name} was created {created[row.service_name]} times")
        sequences = list(
            DeploymentEvent.objects.filter(deployment=row).order_by("sequence").values_list("sequence", flat=True)
        )
        if sequences != list(range(1, row.events_count + 1)):
            findings.add("records", f"{name} has events {sequences}, not {row.events_count}")
        key = ServiceKey(OWN_ACCOUNT, REGION, row.cluster, row.service_name)
        check_wanted(row, world.sandbox.engine.get(key), name, findings, may_be_refused=not world.may_act())


def check_wanted(
    row: Deployment, service: Service | None, name: str, findings: Findings, *, may_be_refused: bool
) -> None:
    """Check that ECS has what is wanted. `may_be_refused`: the person lost the right to the change after it was accepted.

    Then the change waits, with the reason on the deployment, until a person with the right asks for it.
    """
    is_there = service is not None and service.status == "ACTIVE"
    desired = service.desired if service is not None and is_there else 0
    if row.status == "failed":
        if is_there and row.service_arn is None:
            findings.add("wrong", f"{name} failed to be created, but its service exists")
        return
    if row.observed_generation != row.requested_generation:
        if may_be_refused and row.check_error:
            return
        findings.add("lost", f"{name}: change {row.requested_generation} was not applied ({row.check_error})")
    elif row.wanted == "gone" and is_there:
        findings.add("wrong", f"{name} is killed, but its service exists")
    elif row.wanted == "stopped" and (desired or row.status != "stopped"):
        findings.add("wrong", f"{name} is {row.status} and should be stopped; ECS wants {desired}")
    elif row.wanted == "running" and (desired != row.replicas or row.status != "ready"):
        findings.add("wrong", f"{name} is {row.status} with {row.replicas} replicas; ECS wants {desired}")
