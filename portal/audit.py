"""The audit trail: append-only rows, each written in the same transaction as the change it describes.

The database links each row to the one before, and refuses to change or delete a row (migration 0019).
"""

from typing import Any

from django.contrib.auth.models import AnonymousUser

from portal.client_ip import client_ip_var
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
    """Write one audit row. Call this inside the transaction of the change. `actor` None means the portal itself.

    Call it after every other write of the transaction: it holds the lock on the end of the organization's chain until
    the commit, so a transaction that then waits for another row could deadlock with the one that holds it.
    """
    person = None if actor is None or isinstance(actor, AnonymousUser) else actor
    return AuditEvent.objects.create(
        organization=organization,
        kind=kind,
        actor=person,
        actor_email=person.email if person else "system",
        subject=subject,
        data=data or {},
        request_id=request_id_var.get(),
        client_ip=client_ip_var.get(),
    )
