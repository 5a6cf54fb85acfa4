"""The audit trail: append-only rows, each written in the same transaction as the change it describes.

A trigger in the database refuses to change or delete a row (migration 0002).
"""

from typing import Any

from django.contrib.auth.models import AnonymousUser

from portal.command_log import log_when_committed
from portal.models import AuditEvent, AuditKind
from portal.request_id import request_id_var


def record(
    kind: AuditKind,
    *,
    organization: Any,
    actor: Any,
    subject: str,
    data: dict[str, Any] | None = None,
) -> AuditEvent:
    """Write one audit row. Call this inside the transaction of the change. `actor` None means the portal itself."""
    person = None if actor is None or isinstance(actor, AnonymousUser) else actor
    event = AuditEvent.objects.create(
        organization=organization,
        kind=kind,
        actor=person,
        actor_email=person.email if person else "system",
        subject=subject,
        data=data or {},
        request_id=request_id_var.get(),
    )
    log_when_committed(event)
    return event
