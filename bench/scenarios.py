"""The scripts of `make bench-verdicts`: events that happen to a rollout, and the outcomes they may lead to.

A script only arranges events; the oracle (oracle.py) determines the actual result. If chance decides the outcome (an
outsider may come too late), the script lists all possible ones. Any other outcome is a bug in the script or the oracle.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

Json = dict[str, Any]


class Case(Protocol):
    """One organization with one upgrade, which a script sets up before the start."""

    chance: Random
    target: str
    kind: str  # the kind of upgrade: verdicts.KINDS
    seeded: Json  # seed fields of the upgraded service
    seconds_asleep: float  # for this long after the call no worker runs
    loses_real_time: bool  # a call waits for its timeout in wall time

    def fault(self, kind: str, *, service: str | None = None, **fields: Any) -> None:
        """Add a fault when the upgrade is recorded, before its first step."""

    def later(self, low: float, high: float, action: Callable[[], None]) -> None:
        """Run the action `low` to `high` seconds after the portal's call has started a deployment."""

    def soon(self, action: Callable[[], None]) -> None:
        """Run the action as soon as the upgrade is recorded."""

    def early(self, action: Callable[[], None]) -> None:
        """Run the action before the upgrade is triggered."""

    def failing(self, kind: str, action: str, low: float, high: float) -> None:
        """Let calls of this AWS action fail for a while, starting `low` to `high` seconds after the portal's call."""

    def meanwhile(self, real_seconds: float, action: Callable[[], None]) -> None:
        """Run the action after `real_seconds` of wall time, even while the portal waits for a call."""

    def then_rolled_back(self, arrange: Callable[[], None]) -> None:
        """Let a person roll the upgrade back after it has succeeded, and apply the script to the rollback."""

    # Actions of others

    def outsider_deploys(self) -> None: ...
    def outsider_deploys_another_definition(self) -> None: ...
    def outsider_stops(self) -> None: ...
    def outsider_scales(self) -> None: ...
    def outsider_configures(self, **configuration: Any) -> None: ...
    def outsider_deletes(self, service: str | None = None) -> None: ...
    def outsider_disables(self, service: str) -> None: ...
    def person_stops(self) -> None: ...
    def clear_cluster(self) -> None: ...


@dataclass(frozen=True)
class Scenario:
    """One script. `share` is its relative frequency; `ends` are its possible outcomes."""

    name: str
    share: int
    ends: frozenset[str]
    arrange: Callable[[Case], None]


SCENARIOS: list[Scenario] = []


def scenario(share: int, *ends: str) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    def kept(arrange: Callable[[Case], None]) -> Callable[[Case], None]:
        SCENARIOS.append(Scenario(arrange.__name__.replace("_", " "), share, frozenset(ends), arrange))
        return arrange

    return kept


BREAKER_ONLY = {"breaker": True, "rollback": False}
ALARMS = {"alarmNames": ["too-many-5xx"], "enable": True, "rollback": False}
# How long reads may show the state before a write. The range includes values below and above the engine's read interval,
# but none above the time it waits for a lost deployment to appear (UPGRADE_ADOPT_SECONDS).
LAG_SECONDS = (4, 14)
READS = ("DescribeServices", "DescribeServiceDeployments")


# No outside changes


@scenario(110, "completed")
def success(case: Case) -> None:
    pass


@scenario(25, "completed")
def slow_tasks(case: Case) -> None:
    case.fault("slow", times=1, factor=case.chance.choice([2, 3, 5]))


@scenario(20, "completed")
def some_tasks_crash(case: Case) -> None:
    case.seeded["desired_count"] = 4
    case.fault("crash", times=1, task_count=case.chance.choice([1, 2]))


@scenario(20, "no_change")
def nothing_to_change(case: Case) -> None:
    case.kind = "unchanged"


@scenario(20, "completed")
def nothing_to_change_but_an_outsider_deploys(case: Case) -> None:
    case.kind = "unchanged"
    case.soon(case.chance.choice([case.outsider_deploys, case.outsider_deploys_another_definition]))


@scenario(60, "rolled_back")
def crash(case: Case) -> None:
    case.fault("crash", times=1)


@scenario(40, "rolled_back")
def image_cannot_be_pulled(case: Case) -> None:
    case.fault("image_pull", times=1)


@scenario(40, "circuit_breaker")
def crash_without_rollback(case: Case) -> None:
    case.seeded.update(BREAKER_ONLY)
    case.fault("crash", times=1)


@scenario(25, "rollback_failed")
def rollback_fails(case: Case) -> None:
    case.fault("crash", times=1)
    case.fault("rollback_fails", times=1)


@scenario(30, "rolled_back")
def alarm_with_rollback(case: Case) -> None:
    case.early(lambda: case.outsider_configures(alarms={**ALARMS, "rollback": True}))
    case.fault("alarm", times=1)


@scenario(30, "alarm")
def alarm_without_rollback(case: Case) -> None:
    case.early(lambda: case.outsider_configures(alarms=ALARMS))
    case.fault("alarm", times=1)


# A rollout that never ends is overdue at the bench's deadline of 240 seconds. A person stops it after that.


@scenario(20, "stopped_by_user")
def stuck(case: Case) -> None:
    case.later(270, 330, case.person_stops)
    case.fault("stuck", times=1)


@scenario(15, "stopped_by_user")
def no_capacity(case: Case) -> None:
    case.later(270, 330, case.person_stops)
    case.fault("no_capacity", times=1)


@scenario(8, "stopped_by_user")
def crash_without_breaker(case: Case) -> None:
    case.later(270, 330, case.person_stops)
    case.seeded.update(breaker=False, rollback=False)
    case.fault("crash", times=1)


# Outside changes


@scenario(40, "superseded", "completed")
def superseded_by_another_definition(case: Case) -> None:
    case.later(1, 35, case.outsider_deploys_another_definition)


@scenario(40, "superseded", "completed")
def superseded_by_the_same_definition(case: Case) -> None:
    case.later(1, 35, case.outsider_deploys)


@scenario(15, "superseded")
def superseded_at_once(case: Case) -> None:
    case.later(0, 0, case.outsider_deploys)


@scenario(15, "superseded", "completed")
def superseded_twice(case: Case) -> None:
    case.later(1, 20, case.outsider_deploys)
    case.later(20, 40, case.outsider_deploys_another_definition)


@scenario(20, "rollback_failed", "rolled_back", "superseded")
def superseded_while_crashing(case: Case) -> None:
    case.fault("crash", times=1)
    case.later(10, 60, case.outsider_deploys)


@scenario(20, "completed")
def supersedes_an_outsider(case: Case) -> None:
    case.early(case.outsider_deploys)


@scenario(20, "rolled_back", "completed")
def stopped_by_an_outsider(case: Case) -> None:
    case.later(1, 35, case.outsider_stops)


@scenario(20, "completed")
def scaled_by_an_outsider(case: Case) -> None:
    case.later(1, 35, case.outsider_scales)


@scenario(25, "service_missing")
def deleted_in_mid_rollout(case: Case) -> None:
    case.later(1, 20, case.outsider_deletes)


@scenario(10, "service_missing")
def deleted_before(case: Case) -> None:
    case.soon(case.outsider_deletes)


@scenario(5, "service_missing")
def cluster_missing(case: Case) -> None:
    case.clear_cluster()


# A person stops it


@scenario(40, "stopped_by_user", "completed")
def stopped(case: Case) -> None:
    case.later(0, 35, case.person_stops)


@scenario(20, "stopped_by_user", "rolled_back")
def stopped_while_crashing(case: Case) -> None:
    case.fault("crash", times=1)
    case.later(5, 45, case.person_stops)


@scenario(10, "rollback_failed")
def stopped_and_the_rollback_fails(case: Case) -> None:
    case.fault("rollback_fails", times=1)
    case.later(2, 10, case.person_stops)


@scenario(15, "superseded", "stopped_by_user", "rollback_failed", "completed")
def stopped_and_superseded(case: Case) -> None:
    case.later(3, 25, case.person_stops)
    case.later(3, 25, case.outsider_deploys)


@scenario(10, "rolled_back", "stopped_by_user", "completed")
def stopped_by_both(case: Case) -> None:
    case.later(3, 25, case.person_stops)
    case.later(3, 25, case.outsider_stops)


@scenario(10, "not_attempted")
def stopped_before_the_start(case: Case) -> None:
    case.soon(case.person_stops)


@scenario(10, "completed")
def stop_denied(case: Case) -> None:
    case.fault("access_denied", action="StopServiceDeployment")
    case.later(1, 25, case.person_stops)


@scenario(15, "stopped_by_user", "rolled_back")
def stop_that_never_arrives_while_crashing(case: Case) -> None:
    case.fault("crash", times=1)
    case.fault("timeout_before", action="StopServiceDeployment", times=4, seconds=0.01)
    case.later(0, 15, case.person_stops)


@scenario(15, "stopped_by_user", "completed")
def reply_to_the_stop_lost(case: Case) -> None:
    case.fault("reply_lost", action="StopServiceDeployment", times=1)
    case.later(1, 25, case.person_stops)


# The call's reply is lost


@scenario(50, "completed")
def reply_lost(case: Case) -> None:
    case.fault("reply_lost", action="UpdateService", times=1)


@scenario(25, "rolled_back")
def reply_lost_and_crash(case: Case) -> None:
    case.fault("reply_lost", action="UpdateService", times=1)
    case.fault("crash", times=1)


@scenario(20, "superseded", "completed")
def reply_lost_and_another_definition(case: Case) -> None:
    case.fault("reply_lost", action="UpdateService", times=1)
    case.later(0, 30, case.outsider_deploys_another_definition)


@scenario(20, "superseded", "completed")
def reply_lost_and_the_same_definition(case: Case) -> None:
    case.fault("reply_lost", action="UpdateService", times=1)
    case.later(0, 30, case.outsider_deploys)


@scenario(25, "completed")
def reply_lost_and_stale_reads(case: Case) -> None:
    case.fault("reply_lost", action="UpdateService", times=1)
    case.fault("stale_reads", seconds=case.chance.uniform(*LAG_SECONDS))


@scenario(10, "superseded", "completed")
def reply_lost_stale_reads_and_the_same_definition(case: Case) -> None:
    case.fault("reply_lost", action="UpdateService", times=1)
    case.fault("stale_reads", seconds=case.chance.uniform(*LAG_SECONDS), times=1)
    case.later(1, 20, case.outsider_deploys)


@scenario(10, "stopped_by_user", "completed")
def reply_lost_and_stopped(case: Case) -> None:
    case.fault("reply_lost", action="UpdateService", times=1)
    case.later(0, 25, case.person_stops)


@scenario(10, "completed")
def reply_lost_twice(case: Case) -> None:
    case.fault("timeout_before", action="UpdateService", times=1, seconds=0.01)
    case.fault("reply_lost", action="UpdateService", times=2)  # the first is used up by the call before


@scenario(15, "completed")
def connection_lost_before_the_effect(case: Case) -> None:
    case.fault("timeout_before", action="UpdateService", times=1, seconds=0.01)


@scenario(6, "completed")
def times_out_before_the_effect(case: Case) -> None:
    case.fault("timeout_before", action="UpdateService", times=1, seconds=11)
    case.loses_real_time = True


@scenario(6, "completed")
def times_out_after_the_effect(case: Case) -> None:
    case.fault("timeout_after", action="UpdateService", times=1, seconds=11)
    case.loses_real_time = True


@scenario(6, "completed")
def takes_effect_when_nobody_waits_any_more(case: Case) -> None:
    case.fault("delay", action="UpdateService", times=1, seconds=11)
    case.loses_real_time = True


@scenario(6, "completed", "superseded")
def an_outsider_slips_in_before_the_call_whose_reply_is_lost(case: Case) -> None:
    case.fault("delay", action="UpdateService", times=1, seconds=4)
    case.fault("reply_lost", action="UpdateService", times=1)
    case.soon(lambda: case.meanwhile(2.5, case.outsider_deploys_another_definition))
    case.loses_real_time = True


@scenario(20, "completed")
def server_error_once(case: Case) -> None:
    case.fault("server_error", action="UpdateService", times=1)


@scenario(8, "refused")
def server_error_always(case: Case) -> None:
    case.fault("server_error", action="UpdateService")


@scenario(20, "completed")
def throttled_at_the_start(case: Case) -> None:
    case.fault("throttle", action="UpdateService", times=case.chance.randint(1, 4))


@scenario(10, "refused")
def refused_by_ecs(case: Case) -> None:
    case.fault("error", action="UpdateService", code="InvalidParameterException", message="Bad subnet.")


# Registration of the revision with the new image


@scenario(15, "completed")
def reply_to_the_registration_lost(case: Case) -> None:
    case.kind = "version"
    case.fault("reply_lost", action="RegisterTaskDefinition", times=1)


@scenario(10, "completed")
def registration_throttled(case: Case) -> None:
    case.kind = "version"
    case.fault("throttle", action="RegisterTaskDefinition", times=case.chance.randint(1, 2))


@scenario(10, "completed")
def registration_and_call_fail_once(case: Case) -> None:
    case.kind = "version"
    case.fault("server_error", action="RegisterTaskDefinition", times=1)
    case.fault("server_error", action="UpdateService", times=1)


@scenario(8, "access_denied")
def registration_denied(case: Case) -> None:
    case.kind = "version"
    case.fault("access_denied", action="RegisterTaskDefinition")


# A person rolls it back afterwards


@scenario(20, "completed")
def rolled_back_by_a_person(case: Case) -> None:
    case.then_rolled_back(lambda: None)


@scenario(15, "completed", "rolled_back")
def the_rollback_crashes(case: Case) -> None:
    case.then_rolled_back(lambda: case.fault("crash", times=1))


@scenario(15, "completed")
def reply_to_the_rollback_lost(case: Case) -> None:
    case.then_rolled_back(lambda: case.fault("reply_lost", action="UpdateService", times=1))


@scenario(10, "completed", "changed_since")
def an_outsider_deploys_before_the_rollback(case: Case) -> None:
    case.then_rolled_back(lambda: case.soon(case.outsider_deploys_another_definition))


@scenario(10, "completed", "superseded")
def the_rollback_is_superseded(case: Case) -> None:
    case.then_rolled_back(lambda: case.later(1, 30, case.outsider_deploys))


# Reads lag, fail, or are not allowed


@scenario(40, "completed")
def stale_reads(case: Case) -> None:
    case.fault("stale_reads", seconds=case.chance.uniform(*LAG_SECONDS))


@scenario(20, "rolled_back")
def stale_reads_and_crash(case: Case) -> None:
    case.fault("stale_reads", seconds=case.chance.uniform(*LAG_SECONDS))
    case.fault("crash", times=1)


@scenario(20, "superseded", "completed")
def stale_reads_and_superseded(case: Case) -> None:
    case.fault("stale_reads", seconds=case.chance.uniform(*LAG_SECONDS))
    case.later(1, 35, case.chance.choice([case.outsider_deploys, case.outsider_deploys_another_definition]))


@scenario(10, "service_missing")
def stale_reads_and_deleted(case: Case) -> None:
    case.fault("stale_reads", seconds=case.chance.uniform(*LAG_SECONDS))
    case.later(1, 20, case.outsider_deletes)


@scenario(20, "completed")
def reads_throttled(case: Case) -> None:
    case.failing("throttle", case.chance.choice(READS), 5, 30)


@scenario(20, "completed")
def reads_fail(case: Case) -> None:
    case.failing("server_error", case.chance.choice(READS), 5, 30)


@scenario(10, "rolled_back")
def reads_fail_and_crash(case: Case) -> None:
    case.fault("crash", times=1)
    case.failing("server_error", case.chance.choice(READS), 10, 60)


@scenario(15, "completed")
def reads_denied_for_a_while(case: Case) -> None:
    case.failing("access_denied", case.chance.choice(READS), 5, 30)


@scenario(15, "completed")
def replies_to_reads_lost(case: Case) -> None:
    case.failing("reply_lost", case.chance.choice(READS), 5, 30)


@scenario(15, "completed")
def credentials_expire(case: Case) -> None:
    case.later(1, 30, lambda: case.fault("expired_token", action="DescribeServices", times=1))


@scenario(20, "completed")
def no_service_deployments(case: Case) -> None:
    without_service_deployments(case)


@scenario(15, "rolled_back")
def no_service_deployments_and_crash(case: Case) -> None:
    without_service_deployments(case)
    case.fault("crash", times=1)


@scenario(15, "superseded", "completed")
def no_service_deployments_and_superseded(case: Case) -> None:
    without_service_deployments(case)
    case.later(1, 35, case.chance.choice([case.outsider_deploys, case.outsider_deploys_another_definition]))


@scenario(10, "completed")
def no_service_deployments_and_reply_lost(case: Case) -> None:
    without_service_deployments(case)
    case.fault("reply_lost", action="UpdateService", times=1)


@scenario(10, "rollback_failed")
def no_service_deployments_and_the_rollback_fails(case: Case) -> None:
    without_service_deployments(case)
    case.fault("crash", times=1)
    case.fault("rollback_fails", times=1)


@scenario(20, "stopped_by_user", "completed")
def no_service_deployments_and_stopped(case: Case) -> None:
    without_service_deployments(case)
    case.later(0, 35, case.person_stops)


@scenario(15, "stopped_by_user", "rolled_back")
def no_service_deployments_and_stopped_while_crashing(case: Case) -> None:
    without_service_deployments(case)
    case.fault("crash", times=1)
    case.later(5, 45, case.person_stops)


@scenario(10, "rollback_failed")
def no_service_deployments_stopped_and_the_rollback_fails(case: Case) -> None:
    without_service_deployments(case)
    case.fault("rollback_fails", times=1)
    case.later(2, 10, case.person_stops)


@scenario(10, "rolled_back", "completed")
def no_service_deployments_and_stopped_by_an_outsider(case: Case) -> None:
    without_service_deployments(case)
    case.later(1, 35, case.outsider_stops)


@scenario(10, "rollback_failed", "rolled_back", "superseded")
def no_service_deployments_and_superseded_while_crashing(case: Case) -> None:
    without_service_deployments(case)
    case.fault("crash", times=1)
    case.later(10, 60, case.outsider_deploys)


@scenario(10, "rolled_back", "completed")
def no_service_deployments_and_stale_reads(case: Case) -> None:
    without_service_deployments(case)
    case.fault("stale_reads", seconds=case.chance.uniform(*LAG_SECONDS))
    if case.chance.random() < 0.5:
        case.fault("crash", times=1)


@scenario(10, "circuit_breaker", "alarm")
def no_service_deployments_and_no_rollback(case: Case) -> None:
    without_service_deployments(case)
    case.seeded.update(BREAKER_ONLY)
    kind = case.chance.choice(["crash", "alarm"])
    if kind == "alarm":
        case.early(lambda: case.outsider_configures(alarms=ALARMS))
    case.fault(kind, times=1)


@scenario(10, "completed", "rolled_back", "circuit_breaker")
def no_service_deployments_and_asleep(case: Case) -> None:
    without_service_deployments(case)
    kind = case.chance.choice(["success", "crash", "breaker"])
    if kind != "success":
        case.fault("crash", times=1)
    if kind == "breaker":
        case.seeded.update(BREAKER_ONLY)
    case.seconds_asleep = 200
    case.later(150, 180, case.outsider_deploys)


@scenario(10, "superseded", "completed")
def no_list_and_superseded(case: Case) -> None:
    case.fault("access_denied", action="ListServiceDeployments")
    case.later(1, 35, case.outsider_deploys_another_definition)


@scenario(10, "rolled_back")
def no_describe_and_crash(case: Case) -> None:
    case.fault("access_denied", action="DescribeServiceDeployments")
    case.fault("crash", times=1)


@scenario(15, "access_denied")
def update_denied(case: Case) -> None:
    case.fault("access_denied", action="UpdateService")


@scenario(10, "access_denied")
def reads_denied_from_the_start(case: Case) -> None:
    case.fault("access_denied", action="DescribeServices")


# Worker and scheduler are down for a while


@scenario(15, "completed")
def asleep_while_an_outsider_deploys_after_its_end(case: Case) -> None:
    case.seconds_asleep = 200
    case.later(150, 180, case.outsider_deploys)


@scenario(10, "superseded")
def asleep_while_superseded(case: Case) -> None:
    case.seconds_asleep = 200
    case.later(5, 15, case.outsider_deploys)


@scenario(10, "circuit_breaker")
def asleep_while_it_is_mended_after_the_breaker(case: Case) -> None:
    case.seeded.update(BREAKER_ONLY)
    case.fault("crash", times=1)
    case.seconds_asleep = 200
    case.later(150, 180, case.outsider_deploys)


@scenario(10, "rolled_back")
def asleep_while_it_is_mended_after_the_rollback(case: Case) -> None:
    case.fault("crash", times=1)
    case.seconds_asleep = 200
    case.later(150, 180, case.outsider_deploys)


@scenario(10, "completed", "rolled_back")
def asleep_past_the_deadline(case: Case) -> None:
    if case.chance.random() < 0.5:
        case.fault("crash", times=1)
    case.seconds_asleep = 400


# All three services


@scenario(30, "completed")
def all_succeed(case: Case) -> None:
    case.target = "all"


@scenario(30, "completed", "rolled_back", "not_attempted")
def all_with_a_crash(case: Case) -> None:
    case.target = "all"
    case.fault("crash", times=1, service=case.chance.choice(["agent", "orchestrator", "customer-portal"]))


@scenario(12, "completed", "service_missing")
def all_with_a_missing_service(case: Case) -> None:
    case.target = "all"
    gone = case.chance.choice(["orchestrator", "customer-portal"])
    case.soon(lambda: case.outsider_deletes(gone))


@scenario(12, "completed", "disabled")
def all_with_a_disabled_service(case: Case) -> None:
    case.target = "all"
    off = case.chance.choice(["agent", "orchestrator", "customer-portal"])
    case.early(lambda: case.outsider_disables(off))


@scenario(12, "completed", "stopped_by_user", "not_attempted")
def all_stopped(case: Case) -> None:
    case.target = "all"
    case.later(2, 80, case.person_stops)


@scenario(12, "completed", "superseded", "not_attempted")
def all_with_an_outsider(case: Case) -> None:
    case.target = "all"
    case.later(2, 30, case.outsider_deploys)


def without_service_deployments(case: Case) -> None:
    """Deny the newer calls, as for a role or region that lacks them."""
    for action in ("ListServiceDeployments", "DescribeServiceDeployments"):
        case.fault("access_denied", action=action)
