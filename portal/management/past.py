"""Audit rows of the demo's made-up past, so that Activity agrees with the history. For the seeding commands only."""

from datetime import datetime
from typing import Any

from portal.audit import SYSTEM
from portal.models import AuditEvent, AuditKind, Organization, User


def record_past(
    kind: AuditKind,
    organization: Organization,
    actor: User | None,
    subject: str,
    *,
    at: datetime,
    data: dict[str, Any] | None = None,
) -> None:
    """Write one audit row of an earlier time. `actor` None means the portal itself."""
    AuditEvent.objects.create(
        organization=organization,
        kind=kind,
        actor=actor,
        actor_email=actor.email if actor else SYSTEM,
        subject=subject,
        data=data or {},
        request_id="demo",
        created_at=at,
    )
