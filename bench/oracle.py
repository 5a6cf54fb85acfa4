"""Computes the correct verdict of a rollout from the local AWS's ledger and records, without any code of the portal.

The ledger shows which UpdateService call by the portal started which service deployment, and what others did to the
service. The record of that service deployment shows its result. Verdicts use the API's values.
"""

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
# Status and outcome, as returned by `GET /api/v1/deployments/upgrade/{id}`.
Verdict = tuple[str, str | None]

UNKNOWN: Verdict = ("", None)
OUTSIDER = "outsider"
OPEN = ("PENDING", "IN_PROGRESS", "STOP_REQUESTED", "ROLLBACK_REQUESTED", "ROLLBACK_IN_PROGRESS")
# The portal gives up after this many calls without effect, as documented (docs/operations.md).
GIVES_UP_AFTER = 3


@dataclass
class Service:
    """One service and all write calls to it so far, oldest first."""

    cluster: str
    name: str
    entries: list[Json] = field(default_factory=list)

    @property
    def portal_calls(self) -> list[Json]:
        """Return the portal's calls that started a service deployment."""
        return [each for each in self.updates(by_portal=True) if started(each)]

    def updates(self, *, by_portal: bool) -> list[Json]:
        return [each for each in self.entries if each["action"] == "UpdateService" and is_portals(each) == by_portal]


def is_portals(entry: Json) -> bool:
    return OUTSIDER not in entry["principal"]


def started(entry: Json) -> bool:
    return bool(entry["effect"] and entry["service_deployment_arn"])


def judge(service: Service, truth: Json | None, *, is_past_deadline: bool) -> Verdict | None:
    """Return the correct verdict at this moment, or None if none is due yet.

    `truth` is the local AWS's record of the service, if any. The portal may also decide before it calls AWS (nothing to
    change, not attempted, changed since). That cannot be seen here, so the result is UNTOLD and the script must decide.
    """
    if not service.portal_calls:
        return without_deployment(service, is_past_deadline=is_past_deadline)
    own_call = service.portal_calls[0]
    record = next(
        (each for each in (truth or {}).get("deployments", []) if each["arn"] == own_call["service_deployment_arn"]),
        None,
    )
    if record is None or (record["status"] == "STOPPED" and is_deleted(service)):
        return "FAILED", "service_missing"
    if record["status"] in OPEN:
        return None  # even past the deadline: it is overdue, and may still end
    return judged(service, own_call, record)


def without_deployment(service: Service, *, is_past_deadline: bool) -> Verdict | None:
    calls = service.updates(by_portal=True)
    if not calls:
        return untouched(service)
    last = calls[-1]["error"]
    if last == "AccessDeniedException":
        return "FAILED", "access_denied"
    if any(
        started(each) and not is_portals(each) and each["sequence"] > calls[0]["sequence"] for each in service.entries
    ):
        return "FAILED", "superseded"  # the portal does not repeat a call over an outside deployment
    if last == "InvalidParameterException" or len(calls) >= GIVES_UP_AFTER:
        return "FAILED", "refused"
    return ("FAILED", "timed_out") if is_past_deadline else None


def untouched(service: Service) -> Verdict:
    """Return the correct verdict on a service that the portal never tried to update."""
    if is_deleted(service):
        return "FAILED", "service_missing"
    if any(each["effect"] and each["parameters"].get("desiredCount") == 0 for each in service.updates(by_portal=False)):
        return "SKIPPED", "disabled"
    return UNKNOWN


def judged(service: Service, own_call: Json, record: Json) -> Verdict:
    by_itself = record["breaker"] == "TRIGGERED" or record["alarm"] == "TRIGGERED"
    match record["status"]:
        case "SUCCESSFUL":
            return "SUCCESS", "completed"
        case "ROLLBACK_SUCCESSFUL":
            return "FAILED", "stopped_by_user" if not by_itself and is_stopped_by_portal(
                service, own_call
            ) else "rolled_back"
        case "ROLLBACK_FAILED":
            return "FAILED", "rollback_failed"
        case "STOPPED" if record["alarm"] == "TRIGGERED":
            return "FAILED", "alarm"
        case "STOPPED" if record["breaker"] == "TRIGGERED":
            return "FAILED", "circuit_breaker"
        case "STOPPED" if is_superseded(service, own_call, record):
            return "FAILED", "superseded"
        case other:
            raise AssertionError(f"{service.name} in {service.cluster}: its deployment cannot be {other}")


def is_stopped_by_portal(service: Service, own_call: Json) -> bool:
    """Return whether the first StopServiceDeployment of the portal's own deployment came from the portal."""
    stops = [
        each
        for each in service.entries
        if each["action"] == "StopServiceDeployment"
        and each["effect"]
        and each["parameters"]["serviceDeploymentArn"] == own_call["service_deployment_arn"]
    ]
    return bool(stops) and is_portals(stops[0])


def is_superseded(service: Service, own_call: Json, record: Json) -> bool:
    later = [each for each in service.entries if started(each) and each["sequence"] > own_call["sequence"]]
    return any(each["time"] <= record["finished_at"] for each in later)


def is_deleted(service: Service) -> bool:
    return any(each["action"] == "DeleteService" and each["effect"] for each in service.entries)


def overall(verdicts: list[Verdict]) -> str:
    """Return the status of an upgrade from the verdicts on its services. SKIPPED ones do not count."""
    counted = {status for status, _ in verdicts if status != "SKIPPED"}
    if counted == {"SUCCESS"}:
        return "SUCCESS"
    return "PARTIAL" if "SUCCESS" in counted else "FAILED"
