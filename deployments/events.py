"""Writes a deployment's events. One SQL statement counts the event on its deployment and inserts it."""

from datetime import datetime

from django.db import connection

from deployments.models import Deployment
from deployments.states import EventType

# The row lock of the UPDATE orders the events of a deployment. The clock is read under this lock, so that sequence and
# created_at always have the same order.
RECORD = """
WITH counted AS (
    UPDATE deployments_deployment
    SET events_count = events_count + 1,
        event_counts = event_counts || jsonb_build_object(
            %(event_type)s || '|' || COALESCE(%(status)s, status),
            COALESCE((event_counts ->> (%(event_type)s || '|' || COALESCE(%(status)s, status)))::int, 0) + 1
        )
    WHERE id = %(deployment)s
    RETURNING id, organization_id, events_count, COALESCE(%(status)s, status) AS status
)
INSERT INTO deployments_deploymentevent (
    id, organization_id, deployment_id, sequence, event_type, status, node_id, error_message, detail, actor, created_at
)
SELECT
    gen_random_uuid(), organization_id, id, events_count, %(event_type)s, status, %(node_id)s, %(error_message)s,
    %(detail)s, %(actor)s, COALESCE(%(created_at)s, clock_timestamp())
FROM counted
"""


def record_event(
    deployment: Deployment,
    event_type: EventType,
    *,
    actor: str,
    node_id: str | None = None,
    error_message: str | None = None,
    detail: str = "",
    status: str | None = None,
    created_at: datetime | None = None,
) -> None:
    """Add one event. Call it in the transaction of the change that it describes.

    `status` None means the current status of the row.
    """
    parameters: dict[str, str | datetime | None] = {
        "deployment": str(deployment.pk),
        "event_type": event_type.value,
        "status": status,
        "node_id": node_id,
        "error_message": error_message,
        "detail": detail,
        "actor": actor,
        "created_at": created_at,
    }
    with connection.cursor() as cursor:
        cursor.execute(RECORD, parameters)
