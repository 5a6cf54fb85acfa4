"""The audit trail: append-only rows, each written in the same transaction as the change it describes.

The database links each row to the one before, and refuses to change or delete a row (migration 0019).

What changes nothing (a refused attempt, a failed sign-in, an export) is recorded by `record_repeated`: the first row is
written immediately, and repeats within a minute are counted and written as one row.
"""

import hashlib
import json
import logging
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db import DatabaseError, connection, transaction
from django.db.models.functions import Now
from psycopg.types.json import Jsonb

from portal.api_token import describe_present_token
from portal.client_ip import get_present_client_ip
from portal.command_log import log_when_committed
from portal.database.statements import insert
from portal.models import SITE_CHAIN, AuditEvent, AuditKind, AuditRepeat
from portal.request_id import request_id_var
from portal.tenancy import all_organizations

# Repeats of one actor, kind and target within so many seconds are one row.
REPEAT_SECONDS = 60
REPEATS_PER_SWEEP = 200
SYSTEM, ANONYMOUS = "system", "anonymous"

logger = logging.getLogger(__name__)


def record(
    kind: AuditKind,
    *,
    organization: Any,
    actor: Any,
    subject: str,
    data: dict[str, Any] | None = None,
) -> AuditEvent:
    """Write one audit row. Call this inside the transaction of the change. `actor` None means the portal itself.

    Returns the row without the columns that the database writes.

    Call it after every other write of the transaction: it holds the lock on the end of the organization's chain until
    the commit, so a transaction that then waits for another row could deadlock with the one that holds it.
    """
    # Only the context of all organizations may see, and so write, a row of no organization.
    with nullcontext() if organization else all_organizations("the row belongs to no organization"):
        event = AuditEvent(
            organization=organization,
            kind=kind,
            actor=get_person(actor),
            actor_email=get_name(actor),
            subject=subject,
            data=(data or {}) | describe_present_token(),
            request_id=request_id_var.get(),
            client_ip=get_present_client_ip(),
        )
        insert([event])
    log_when_committed(event)
    return event


def get_person(actor: Any) -> Any:
    return None if isinstance(actor, AnonymousUser) else actor


def get_name(actor: Any) -> str:
    """Return the actor's e-mail address; `system` for None, `anonymous` for no one signed in."""
    if actor is None:
        return SYSTEM
    return ANONYMOUS if isinstance(actor, AnonymousUser) else str(actor.email)


# --- repeats -------------------------------------------------------------------------------------------------------


def record_repeated(
    kind: AuditKind,
    *,
    organization: Any,
    actor: Any,
    subject: str,
    same: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
    is_counted: bool = True,
) -> None:
    """Record what may be repeated often and changes nothing, in a transaction of its own.

    `same`: the data in which repeats agree. `more`: further data, kept from the first of them.
    `is_counted`: False leaves no row for the repeats.

    Never fails the request: without the database the row is only logged.
    """
    same = (same or {}) | describe_present_token()
    data = same | (more or {})
    chain = str(organization.pk) if organization else SITE_CHAIN
    person, name = get_person(actor), get_name(actor)
    what = json.dumps([chain, kind, name, subject, same], sort_keys=True, default=str)
    row = {
        "chain": chain,
        "kind": kind,
        "actor_id": person.pk if person else None,
        "actor_email": name,
        "subject": subject,
        "data": data,
        "request_id": request_id_var.get(),
        "client_ip": get_present_client_ip(),
        "is_counted": is_counted,
    }
    try:
        with all_organizations("the person may be no member of it"), transaction.atomic():
            if is_first(hashlib.sha256(what.encode()).hexdigest(), row):
                record(kind, organization=organization, actor=actor, subject=subject, data=data)
    except DatabaseError:
        logger.exception("audit row not written: %s %s by %s", kind, subject, name)


def is_first(fingerprint: str, row: dict[str, Any]) -> bool:
    """Count a repeat. Return whether there was none before in this minute. *Costs* one query."""
    values = row | {"fingerprint": fingerprint, "data": Jsonb(row["data"])}
    columns, marks = ", ".join(values), ", ".join(["%s"] * len(values))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO portal_auditrepeat AS repeat ({columns}, count) VALUES ({marks}, 0) "  # noqa: S608 - our names
            "ON CONFLICT (fingerprint) DO UPDATE SET count = repeat.count + 1, last_at = statement_timestamp() "
            "RETURNING count",
            list(values.values()),
        )
        (count,) = cursor.fetchone()
    return bool(count == 0)


@all_organizations("repeats of every organization")
def write_repeats() -> None:
    """Write one row with the number of repeats for each minute that is over. Each in a transaction of its own."""
    over = AuditRepeat.objects.filter(first_at__lt=Now() - timedelta(seconds=REPEAT_SECONDS)).order_by("first_at")
    for fingerprint in over.values_list("pk", flat=True)[:REPEATS_PER_SWEEP]:
        with transaction.atomic():
            # Another scheduler may be writing it.
            repeat = AuditRepeat.objects.select_for_update(skip_locked=True).filter(pk=fingerprint).first()
            if repeat:
                write_repeat(repeat)


def write_repeat(repeat: AuditRepeat) -> None:
    AuditRepeat.objects.filter(pk=repeat.pk).delete()
    if not repeat.count or not repeat.is_counted:
        return
    first, last = (f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in (repeat.first_at, repeat.last_at))
    AuditEvent.objects.create(
        organization_id=None if repeat.chain == SITE_CHAIN else repeat.chain,
        kind=repeat.kind,
        actor_id=repeat.actor_id,
        actor_email=repeat.actor_email,
        subject=repeat.subject,
        data=repeat.data | {"repeats": repeat.count, "first_at": first, "last_at": last},
        request_id=repeat.request_id,
        client_ip=repeat.client_ip,
    )
