"""Writes a deployment's events. One statement changes the deployment, counts the event on it and inserts the event."""

from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import F, QuerySet
from django.db.models.expressions import RawSQL
from django.db.models.sql import InsertQuery, UpdateQuery

from deployments.models import Deployment
from deployments.states import EventType
from portal.idempotency import KeyUse

# The row lock of the UPDATE orders the events of a deployment. The clock is read under this lock, so that sequence and
# created_at always have the same order.
RECORD = """
WITH changed AS ({change} RETURNING id, organization_id, events_count, status){key}
INSERT INTO deployments_deploymentevent (
    id, organization_id, deployment_id, sequence, event_type, status, node_id, error_message, detail, actor, created_at
)
SELECT gen_random_uuid(), organization_id, id, events_count, %s, COALESCE(%s, status), %s, %s, %s, %s,
    COALESCE(%s, clock_timestamp())
FROM changed
"""
COUNTED = "event_counts || jsonb_build_object({name}, COALESCE((event_counts ->> ({name}))::int, 0) + 1)"


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
    named = RawSQL(COUNTED.format(name="%s || '|' || COALESCE(%s, status)"), [event_type.value, status] * 2)  # noqa: S611
    counted = {"events_count": F("events_count") + 1, "event_counts": named}
    change = update_sql(Deployment.objects.filter(pk=deployment.pk), counted)
    execute(change, None, [event_type.value, status, node_id, error_message, detail, actor, created_at])


def change_with_event(
    rows: "QuerySet[Deployment]",
    fields: dict[str, Any],
    event_type: EventType,
    *,
    status: str,
    key: KeyUse | None,
    **said: str,
) -> bool:
    """Change the one deployment of `rows`, add its event and store the key, if any. Return whether there was such a row.

    `status`: the status after the change. `said`: the event's `actor` and `detail`.

    *Raises* IntegrityError for a key that is stored already. *Costs* one statement.
    """
    name = f"{event_type.value}|{status}"
    counted = {
        "events_count": F("events_count") + 1,
        "event_counts": RawSQL(COUNTED.format(name="%s::text"), [name, name]),  # noqa: S611 - our own
    }
    return execute(update_sql(rows, fields | counted), key, event_values(event_type, status, **said))


def create_with_event(deployment: Deployment, *, key: KeyUse | None, **said: str) -> None:
    """Insert the deployment with its first event, and store the key. As change_with_event."""
    deployment.events_count, deployment.event_counts = 1, {f"{EventType.CREATE}|{deployment.status}": 1}
    query = InsertQuery(Deployment)
    query.insert_values(Deployment._meta.concrete_fields, [deployment])
    [insert] = query.get_compiler(connection=connection).as_sql()
    execute(insert, key, event_values(EventType.CREATE, deployment.status, **said))


def event_values(event_type: EventType, status: str, *, actor: str, detail: str = "") -> list[Any]:
    return [event_type.value, status, None, None, detail, actor, None]


def update_sql(rows: "QuerySet[Deployment]", fields: dict[str, Any]) -> tuple[str, list[Any]]:
    query: Any = rows.query.chain(UpdateQuery)
    query.add_update_values(fields)
    statement, parameters = query.get_compiler(connection=connection).as_sql()
    return statement, list(parameters)


def execute(change: tuple[str, Any], key: KeyUse | None, event: list[Any]) -> bool:
    """Run the change, the key's statement and the event's as one. Return whether a row was changed."""
    statement, parameters = change
    store, key_parameters = key.store_sql("changed") if key else ("", [])
    with connection.cursor() as cursor:
        cursor.execute(
            RECORD.format(change=statement, key=f", used AS ({store})" if store else ""),
            [*parameters, *key_parameters, *event],
        )
        return bool(cursor.rowcount)
