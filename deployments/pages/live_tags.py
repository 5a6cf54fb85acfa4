"""What the live fragments of deployments show now, as statements that `get_page_organization` runs with its own."""

from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.http import QueryDict

from deployments.commands import WATCH_DURATION, WATCH_WRITE_SECONDS
from deployments.states import Status
from portal.pagination import DEFAULT_LIMIT

# A deployment is marked as viewed again when its mark is this old, in seconds.
MARK_LASTS = round(WATCH_DURATION.total_seconds() - WATCH_WRITE_SECONDS)
NEEDS_MARK = f"""deployment.next_check_at IS NOT NULL AND (
    deployment.watched_until IS NULL OR deployment.watched_until < statement_timestamp() + interval '{MARK_LASTS} seconds'
)"""
# The oldest event shows whether one has left the window since.
DEPLOYMENT = f"""
SELECT deployment.revision, agent.name, (
    SELECT event.sequence FROM deployments_deploymentevent AS event
    WHERE event.deployment_id = deployment.id AND event.created_at >= %(since)s ORDER BY event.created_at LIMIT 1
), deployment.last_checked_at, {NEEDS_MARK}
FROM deployments_deployment AS deployment JOIN deployments_agent AS agent ON agent.id = deployment.agent_id
WHERE deployment.organization_id = %(organization)s AND deployment.id = %(deployment)s
"""  # noqa: S608 - our own


class LiveDeployment(NamedTuple):
    """The columns of DEPLOYMENT. All None: there is no such deployment."""

    revision: int | None
    agent_name: str | None
    oldest_event: int | None
    last_checked_at: datetime | None
    needs_mark: bool | None

    @property
    def times(self) -> str:
        return f"last-checked={self.last_checked_at.isoformat()}" if self.last_checked_at else ""


def live_deployment(deployment_id: UUID, since: datetime) -> tuple[str, dict[str, Any]]:
    """Return the statement DEPLOYMENT with its values. `since`: the begin of the window of the timeline."""
    return DEPLOYMENT, {"since": since, "deployment": deployment_id}


# A page of the list, newest first, with the counts on its chips.
LIST = f"""
SELECT md5(string_agg(concat_ws(' ', shown.id, shown.revision, shown.name), ',')),
    array_agg(shown.id) FILTER (WHERE shown.needs_mark),
    (
        SELECT string_agg(concat_ws(' ', counted.status, counted.total), ',' ORDER BY counted.status) FROM (
            SELECT status, sum(count) AS total FROM deployments_deploymentcount
            WHERE organization_id = %(organization)s GROUP BY status
        ) AS counted
    ),
    EXISTS (SELECT FROM deployments_agent AS agent WHERE agent.organization_id = %(organization)s)
FROM (
    SELECT deployment.id, deployment.revision, agent.name, {NEEDS_MARK} AS needs_mark
    FROM deployments_deployment AS deployment JOIN deployments_agent AS agent ON agent.id = deployment.agent_id
    WHERE deployment.organization_id = %(organization)s {{filters}}
    ORDER BY deployment.created_at DESC, deployment.id DESC LIMIT {DEFAULT_LIMIT} OFFSET %(skip)s
) AS shown
"""  # noqa: S608 - our own


class LiveList(NamedTuple):
    """The columns of LIST. `unmarked`: the rows to mark as viewed."""

    rows: str | None
    unmarked: list[UUID] | None
    counts: str | None
    has_agents: bool


def live_list(query: QueryDict) -> tuple[str, dict[str, Any]] | None:
    """Return the statement LIST for the filters in the query, with its values.

    None for a query with a text, another order or an invalid value: the list must be read to know whether it changed.
    """
    status, agent_id, skip = query.get("status"), as_uuid(query.get("agent")), query.get("skip") or "0"
    is_known = (not status or status in Status.values) and (not query.get("agent") or agent_id) and is_skip(skip)
    if query.get("q") or query.get("sort") or not is_known:
        return None
    filters = " AND deployment.status = %(status)s" if status else ""
    filters += " AND deployment.agent_id = %(agent)s" if agent_id else ""
    return LIST.format(filters=filters), {"status": status, "agent": agent_id, "skip": int(skip)}


def is_skip(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10


def as_uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None
