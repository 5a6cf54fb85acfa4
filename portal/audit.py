"""The audit trail: append-only rows, each written in the same transaction as the change it describes.

A trigger in the database refuses to change or delete a row (migration 0002).
"""

from contextlib import nullcontext
from typing import Any

from django.contrib.auth.models import AnonymousUser

from portal.models import AuditEvent, AuditKind
from portal.request_id import request_id_var
from portal.tenancy import all_organizations


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
    # Only the context of all organizations may see, and so write, a row of no organization.
    with nullcontext() if organization else all_organizations("the row belongs to no organization"):
        return AuditEvent.objects.create(
            organization=organization,
            kind=kind,
            actor=person,
            actor_email=person.email if person else "system",
            subject=subject,
            data=data or {},
            request_id=request_id_var.get(),
        )
