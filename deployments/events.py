"""Writes a deployment's events. One statement changes the deployment, counts the event on it and inserts the event."""

from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import F, QuerySet
from django.db.models.expressions import RawSQL

from deployments.models import Deployment, Revision
from deployments.states import EventType
from portal.database.statements import Given, UpdateStatement, insert_sql, set_inserted
from portal.idempotency import KeyUse

# The row lock of the UPDATE orders the events of a deployment. The clock is read under this lock, so that sequence and
# created_at always have the same order.
RECORD = """
WITH {before}changed AS ({change} RETURNING id, organization_id, events_count, status){key}
INSERT INTO deployments_deploymentevent (
    id, organization_id, deployment_id, sequence, event_type, status, node_id, error_message, detail, actor, created_at
)
SELECT gen_random_uuid(), organization_id, id, events_count, %s, COALESCE(%s, status), %s, %s, %s, %s,
    COALESCE(%s, clock_timestamp())
FROM changed
"""
# The number of events with a name, counted one more.
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
    change = UpdateStatement(Deployment.objects.filter(pk=deployment.pk), counted)
    execute(change.fill(), None, [event_type.value, status, node_id, error_message, detail, actor, created_at])


def make_change(rows: "QuerySet[Deployment]", fields: dict[str, Any]) -> UpdateStatement:
    """Return the statement that changes the one deployment of `rows` and counts an event, for change_with_event."""
    counted = RawSQL(COUNTED.format(name="%s::text"), [Given("counted")] * 2)  # noqa: S611 - our own
    return UpdateStatement(rows, fields | {"events_count": F("events_count") + 1, "event_counts": counted})


def change_with_event(
    change: UpdateStatement,
    given: dict[str, Any],
    event_type: EventType,
    *,
    status: str,
    key: KeyUse | None,
    **said: str,
) -> bool:
    """Change the deployment, add its event and store the key, if any. Return whether there was such a row.

    `given`: the values of the statement's placeholders. `status`: the status after the change. `said`: the event's
    `actor` and `detail`.

    *Raises* IntegrityError for a key that is stored already. *Costs* one statement.
    """
    filled = change.fill(**given, counted=f"{event_type.value}|{status}")
    return execute(filled, key, event_values(event_type, status, **said))


def create_with_event(
    deployment: Deployment, *, key: KeyUse | None, revision: Revision | None = None, **said: str
) -> None:
    """Insert the deployment with its first event, and its revision if that is new; store the key. As change_with_event."""
    deployment.events_count, deployment.event_counts = 1, {f"{EventType.CREATE}|{deployment.status}": 1}
    before = insert_sql([revision]) if revision else None
    execute(insert_sql([deployment]), key, event_values(EventType.CREATE, deployment.status, **said), before)
    for each in (deployment, *([revision] if revision else [])):
        set_inserted(each, each.pk)


def event_values(event_type: EventType, status: str, *, actor: str, detail: str = "") -> list[Any]:
    return [event_type.value, status, None, None, detail, actor, None]


def execute(
    change: tuple[str, Any], key: KeyUse | None, event: list[Any], before: tuple[str, list[Any]] | None = None
) -> bool:
    """Run the change, the key's statement and the event's as one. Return whether a row was changed.

    `before`: an INSERT that the change refers to.
    """
    statement, parameters = change
    insertion, inserted = before or ("", [])
    store, key_parameters = key.store_sql("changed") if key else ("", [])
    with connection.cursor() as cursor:
        cursor.execute(
            RECORD.format(
                before=f"inserted AS ({insertion}), " if insertion else "",
                change=statement,
                key=f", used AS ({store})" if store else "",
            ),
            [*inserted, *parameters, *key_parameters, *event],
        )
        return bool(cursor.rowcount)
