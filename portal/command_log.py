"""Logs each accepted command in one line: who did what, in which organization, on which upgrade or deployment.

People are named by their id, because log files have other readers than the audit trail. The line is written after
the commit, so a command that was rolled back leaves none.
"""

import logging

from django.db import transaction

from portal.models import AuditEvent
from portal.request_id import carrying

# The kinds with an id of an object of the organization as subject. Others have e-mail addresses.
SUBJECTS = ("upgrade", "deployment", "agent", "channel")

logger = logging.getLogger(__name__)


def log_when_committed(event: AuditEvent) -> None:
    """Log the event after the commit if a person caused it. The portal's own actions have log lines of their own."""
    if event.actor_id is None or event.organization is None or event.kind.partition(".")[0] not in SUBJECTS:
        return
    fields: dict[str, object] = {
        "user_id": event.actor_id,
        "command": str(event.kind),
        "organization": event.organization.slug,
        event.kind.partition(".")[0]: event.subject,
    }
    transaction.on_commit(lambda: log(event, fields), robust=True)


def log(event: AuditEvent, fields: dict[str, object]) -> None:
    with carrying(event.request_id):
        logger.info(
            "%s %s by user %s in %s",
            event.kind,
            event.subject,
            event.actor_id,
            fields["organization"],
            extra={"fields": fields},
        )
