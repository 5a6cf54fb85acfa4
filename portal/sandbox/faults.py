"""Faults that an operator or a test injects into rollouts and API calls.

A rollout fault binds to service deployments that start while it is active, but to rollbacks only with `rollbacks`.
An API fault applies to matching calls. A fault ends after `times` hits; without `times`, it lasts until it is cleared.
"""

import itertools
import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from portal.sandbox.deployment_configuration import STAGES
from portal.sandbox.errors import AwsError
from portal.sandbox.protocol import ApiRequest, Reply
from portal.sandbox.records import ServiceKey
from portal.sandbox.sts import access_denied, expired_token

ROLLOUT_KINDS = (
    "crash",
    "image_pull",
    "no_capacity",
    "stuck",
    "slow",
    "alarm",
    "rollback_fails",
    "hook_fails",
    "hook_hangs",
)
ERROR_KINDS = ("throttle", "access_denied", "expired_token", "server_error", "error")
DELIVERY_KINDS = ("timeout_before", "timeout_after", "reply_lost", "delay")
API_KINDS = (*ERROR_KINDS, *DELIVERY_KINDS, "stale_reads", "member_left_out")
KINDS = (*ROLLOUT_KINDS, *API_KINDS)

NUMBERS = ("times", "seconds", "factor", "exit_code", "task_count", "status")
DEFAULT_SECONDS = {"timeout_before": 60.0, "timeout_after": 60.0, "delay": 1.0, "stale_reads": 5.0}


class FaultError(ValueError):
    """An invalid fault. The message names the field."""


@dataclass
class Fault:
    """One fault. Empty scope fields match everything. Fields that its kind does not use are None."""

    id: str
    kind: str
    account: str | None = None
    region: str | None = None
    cluster: str | None = None
    service: str | None = None
    action: str = "*"
    family: str | None = None  # for RegisterTaskDefinition, which names no cluster
    times: int | None = None
    rollbacks: bool = False
    task_count: int | None = None
    factor: float | None = None
    seconds: float | None = None
    exit_code: int | None = None
    reason: str | None = None
    container: str | None = None  # the one that crashes; the first essential one if omitted
    alarm_names: list[str] | None = None
    stage: str | None = None  # the lifecycle stage of an alarm or a hook; any stage if omitted
    code: str | None = None
    message: str | None = None
    status: int | None = None
    member: str | None = None  # of the reply, by its path: `services.deployments.id`

    def covers(self, *, account: str, region: str, cluster: str | None, service: str | None) -> bool:
        scope = ((self.account, account), (self.region, region), (self.cluster, cluster), (self.service, service))
        return all(wanted is None or wanted == actual for wanted, actual in scope)


@dataclass(frozen=True)
class Delivery:
    """The delivery of one reply: seconds to wait before and after the effect, and whether the connection is dropped."""

    before_seconds: float = 0.0
    after_seconds: float = 0.0
    drop_before: bool = False
    drop_after: bool = False


class Faults:
    """The active faults, in the order they were added."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self.active: list[Fault] = []

    def add(self, body: dict[str, Any]) -> Fault:
        """Add a fault from its JSON. Raises FaultError that names the invalid field."""
        fault = Fault(id=f"fault-{next(self._ids)}", **checked(body))
        self.active.append(fault)
        return fault

    def remove(self, fault_id: str | None) -> int:
        """Clear one fault, or all of them, and return the number cleared."""
        before = len(self.active)
        self.active = [fault for fault in self.active if fault_id is not None and fault.id != fault_id]
        return before - len(self.active)

    def for_rollout(self, key: ServiceKey, is_rollback: bool) -> list[dict[str, Any]]:
        """Return the faults that bind to a deployment starting now, and count one hit for each."""
        bound = []
        for fault in list(self.active):
            binds = fault.kind in ROLLOUT_KINDS and (
                fault.rollbacks or fault.kind == "rollback_fails" if is_rollback else fault.kind != "rollback_fails"
            )
            if binds and fault.covers(account=key.account, region=key.region, cluster=key.cluster, service=key.name):
                bound.append(as_deployment_fault(fault))
                self._count_hit(fault)
        return bound

    def raise_for(self, request: ApiRequest) -> None:
        """Raise the first matching error fault as AWS's own error."""
        for fault in self._matching(request, ERROR_KINDS):
            self._count_hit(fault)
            raise as_error(fault, request)

    def delivery_for(self, request: ApiRequest) -> Delivery:
        """Return how the call's reply is delivered. At most one fault of each kind applies."""
        found = {fault.kind: fault for fault in reversed(list(self._matching(request, DELIVERY_KINDS)))}
        for fault in found.values():
            self._count_hit(fault)
        seconds = {kind: fault.seconds or DEFAULT_SECONDS.get(kind, 0.0) for kind, fault in found.items()}
        return Delivery(
            before_seconds=seconds.get("delay", 0.0) + seconds.get("timeout_before", 0.0),
            after_seconds=seconds.get("timeout_after", 0.0),
            drop_before="timeout_before" in found,
            drop_after="timeout_after" in found or "reply_lost" in found,
        )

    def stale_seconds_for(self, request: ApiRequest) -> float:
        """Return for how many seconds reads show the state before this write; 0 if there is no such fault."""
        for fault in self._matching(request, ("stale_reads",)):
            self._count_hit(fault)
            return fault.seconds or DEFAULT_SECONDS["stale_reads"]
        return 0.0

    def leave_out(self, request: ApiRequest, reply: Reply) -> Reply:
        """Return the reply without the members that faults name, in every entry of the lists on their path."""
        faults = list(self._matching(request, ("member_left_out",)))
        if not faults or reply.status >= 400:
            return reply
        document = json.loads(reply.body)
        for fault in faults:
            self._count_hit(fault)
            remove_member(document, str(fault.member).split("."))
        return Reply(reply.status, reply.headers, json.dumps(document).encode())

    def _matching(self, request: ApiRequest, kinds: tuple[str, ...]) -> list[Fault]:
        return [
            fault
            for fault in self.active
            if fault.kind in kinds
            and fault.action in ("*", request.action)
            and fault.family in (None, request.params.get("family"))
            and fault.covers(
                account=request.account, region=request.region, cluster=request.cluster, service=request.ecs_service
            )
        ]

    def _count_hit(self, fault: Fault) -> None:
        if fault.times is not None:
            fault.times -= 1
            if fault.times <= 0:
                self.active.remove(fault)

    def clear(self) -> None:
        self.active = []

    def dump(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self.active]

    def load(self, state: list[dict[str, Any]]) -> None:
        self.active = [Fault(**each) for each in state]
        numbers = [int(fault.id.rsplit("-", 1)[-1]) for fault in self.active]
        self._ids = itertools.count(max(numbers, default=0) + 1)


def checked(body: dict[str, Any]) -> dict[str, Any]:
    """Return the body if it describes a fault. Raises FaultError otherwise."""
    known = {each.name for each in fields(Fault)} - {"id"}
    for name, value in body.items():
        if name not in known:
            raise FaultError(f"`{name}` is not a field of a fault. Known fields: {', '.join(sorted(known))}.")
        if name in NUMBERS and value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise FaultError(f"`{name}` must be a number of at least 0, not {value!r}.")
        elif name == "stage" and value is not None and value not in STAGES:
            raise FaultError(f"`stage` must be one of {', '.join(STAGES)}, not {value!r}.")
        elif name == "alarm_names":
            if value is not None and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
                raise FaultError(f"`alarm_names` must be a list of names, not {value!r}.")
        elif name == "rollbacks":
            if not isinstance(value, bool):
                raise FaultError(f"`rollbacks` must be true or false, not {value!r}.")
        elif name not in NUMBERS and value is not None and not isinstance(value, str):
            raise FaultError(f"`{name}` must be a string, not {value!r}.")
    if body.get("kind") not in KINDS:
        raise FaultError(f"`kind` must be one of {', '.join(KINDS)}, not {body.get('kind')!r}.")
    if body.get("times") == 0:
        raise FaultError("`times` must be at least 1. Omit it for a permanent fault.")
    if body["kind"] == "error" and not body.get("code"):
        raise FaultError("`code` is missing: a fault of kind `error` answers with that AWS error code.")
    if body["kind"] == "member_left_out" and not body.get("member"):
        raise FaultError("`member` is missing: a fault of kind `member_left_out` leaves out that member of the reply.")
    if body["kind"] == "slow" and not body.get("factor"):
        raise FaultError(
            "`factor` is missing. A fault of kind `slow` multiplies the duration of each task stage by it."
        )
    return body


def remove_member(value: Any, path: list[str]) -> None:
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, dict):
            continue
        if len(path) == 1:
            each.pop(path[0], None)
        elif path[0] in each:
            remove_member(each[path[0]], path[1:])


def as_deployment_fault(fault: Fault) -> dict[str, Any]:
    """Return the fault as the engine stores it on a deployment. A failing rollback is one whose tasks crash."""
    kind = "crash" if fault.kind == "rollback_fails" else fault.kind
    names = ("task_count", "factor", "exit_code", "reason", "alarm_names", "stage", "container")
    values = {name: getattr(fault, name) for name in names}
    return {"kind": kind, **{name: value for name, value in values.items() if value is not None}}


def as_error(fault: Fault, request: ApiRequest) -> AwsError:
    if fault.kind == "throttle":
        # STS and other query services return Throttling, JSON services ThrottlingException.
        code = "Throttling" if request.protocol == "query" else "ThrottlingException"
        return AwsError(code, fault.message or "Rate exceeded", 400)
    if fault.kind == "access_denied":
        return access_denied(request)
    if fault.kind == "expired_token":
        return expired_token(request)
    if fault.kind == "server_error":
        code = fault.code or ("ServerException" if request.service == "ecs" else "InternalFailure")
        return AwsError(code, fault.message or "Service Unavailable. Please try again later.", fault.status or 500)
    return AwsError(
        fault.code or "ClientException", fault.message or "Fault injected by the local AWS.", fault.status or 400
    )
