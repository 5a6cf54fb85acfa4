"""How a command is recorded: the guarded change with its event, the key, the audit row and the wake-up."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from django.db import IntegrityError, transaction
from django.db.models import F
from django.db.models.functions import Now

from deployments.events import change_with_event, make_change
from deployments.models import Agent, Deployment
from deployments.states import FROM, Command, EventType
from portal.access import require
from portal.audit import record
from portal.database.statements import Given, UpdateStatement, prepare
from portal.errors import PortalError
from portal.idempotency import KeyUse
from portal.models import AuditKind, Role, User
from portal.request_id import request_id_var
from portal.wakeup import dispatch

# What must be as it was read for a command to write its change, and what each change writes.
UNCHANGED = ("status", "requested_generation", "observed_generation")
WRITTEN_ALWAYS = ("requested_generation", "next_check_at", "doubted_at", "events_count", "event_counts")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Change:
    """What a command changes: the fields of the row, its event and its audit row."""

    event: EventType
    kind: AuditKind
    fields: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    detail: str = ""


def run_command(
    deployment: Deployment,
    command: Command,
    actor: User,
    idempotency_key: str | None,
    plan: Callable[[Deployment], Change | None],
    **request: Any,
) -> Deployment:
    """Check role, key and rule, then change the deployment. Return it; changed fields are read again when they are used.

    `plan` returns the change of a row, None if the row is already as asked. What it says about the row as the caller read
    it is written if the row is still the same. If not, and before anything is refused, the row is locked and read again.
    """
    organization = deployment.organization
    require(actor, organization, Role.OPERATOR)
    asked = {"deployment_id": str(deployment.pk), **request}
    key = KeyUse.for_request(f"{command}_deployment", asked, organization=organization, user=actor, key=idempotency_key)

    def make() -> None:
        change = plan(deployment) if deployment.refusal(command) is None else None
        if change is None or not write_change(deployment, command, actor, change, key):
            deployment.refresh_from_db(from_queryset=Deployment.objects.select_for_update(no_key=True))
            refusal = deployment.refusal(command)
            if refusal:
                raise PortalError(refusal.code, refusal.message, 400)
            change = plan(deployment)
            if change is None or not write_change(deployment, command, actor, change, key):
                key.store(str(deployment.pk))
                change = None
        if change:
            audit(change.kind, deployment, actor, change.data)
        dispatch_deployment(deployment)

    run_once(key, make, lambda _: None)
    return deployment


def write_change(row: Deployment, command: Command, actor: User, change: Change, key: KeyUse) -> bool:
    """Change what is wanted, make the row due immediately, add the event and store the key.

    Return False, with nothing written, if the row is no longer as it was read, or its status does not allow the command.
    """
    fields = change.fields | {"requested_by": actor.pk, "request_id": request_id_var.get()}
    now = tuple(name for name, value in fields.items() if isinstance(value, Now))
    plain = {name: value for name, value in fields.items() if name not in now}
    before = {f"{name}_before": getattr(row, name) for name in ("pk", *UNCHANGED)}
    given = before | prepare(Deployment, plain)
    status = change.fields.get("status", row.status)
    said = {"actor": actor.email, "detail": change.detail}
    statement = make_statement(command, tuple(plain), now)
    is_written = change_with_event(statement, given, change.event, status=status, key=key, **said)
    if is_written:
        forget_fields(row, *fields, *WRITTEN_ALWAYS)
    return is_written


@cache
def make_statement(command: Command, given: tuple[str, ...], now: tuple[str, ...]) -> UpdateStatement:
    """Return the statement of a command: the fields that it is given, and those that it sets to the present time."""
    same = {name: Given(f"{name}_before") for name in ("pk", *UNCHANGED)}
    fields: dict[str, Any] = {name: Given(name) for name in given} | {name: Now() for name in now}
    always = {"requested_generation": F("requested_generation") + 1, "next_check_at": Now(), "doubted_at": None}
    return make_change(Deployment.objects.filter(status__in=FROM[command]).filter(**same), fields | always)


def is_pending_of_another(row: Deployment, actor: User) -> bool:
    """Return whether a change that another person wants is not yet applied.

    It is then asked for again: the first one may have lost the role for it (engine/rights.py).
    """
    return row.observed_generation < row.requested_generation and row.requested_by_id != actor.pk


def forget_fields(deployment: Deployment, *names: str) -> None:
    """Let these fields be read again when they are used. Most callers need none of them."""
    for each in Deployment._meta.concrete_fields:
        if each.name in names:
            deployment.__dict__.pop(each.attname, None)


def run_once(key: KeyUse, make: Callable[[], Made], find: Callable[[str], Made]) -> Made:
    """Run `make` in one transaction, or find what the same key made before, even if a concurrent request made it."""
    try:
        with transaction.atomic():
            return make()
    except (PortalError, IntegrityError):
        earlier = key.find_earlier()
        if earlier:
            return find(earlier)
        raise


def audit(kind: AuditKind, subject: Agent | Deployment, actor: User | None, data: dict[str, Any]) -> None:
    """Write the audit row. It keeps the agent's name, under which the Activity page lists it, as it was at that time."""
    if isinstance(subject, Deployment):
        named = {"name": subject.agent.name, "service_name": subject.service_name}
    else:
        named = {"name": subject.name}
    record(kind, organization=subject.organization, actor=actor, subject=str(subject.pk), data=named | data)


def dispatch_deployment(deployment: Deployment) -> None:
    """Dispatch a reconcile task after the commit. If it is lost, the sweep finds the row within a second."""
    place = (str(deployment.organization_id), deployment.cluster)
    transaction.on_commit(lambda: dispatch("deployments.tasks.reconcile", *place))
