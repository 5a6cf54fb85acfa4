"""The deployments that need attention on the overview: those that failed, with the last line that says why."""

import json
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.text import capfirst

from deployments.models import Deployment, count_rows
from deployments.states import Status
from portal.cloudwatch.last_error import read_known_errors, read_last_error
from portal.database.statements import Given
from portal.models import Organization
from portal.web.attention import Item, Level, Source
from portal.web.observe.time_window import around_event
from portal.web.overview_rows import Rows

SHOWN = 3
# A newer failure is in the page's own window, the last hour.
IN_LAST_HOUR = timedelta(minutes=50)


def select_rows() -> dict[str, QuerySet[Any]]:
    """Return what the overview shows of deployments: the newest failed ones, and the number in each status.

    The few rows are chosen before their agents are joined: PostgreSQL would join all failed ones, and sort them then.
    """
    own, order = Given("organization"), ("-created_at", "-id")
    newest = Deployment.objects.matching(own, status=Status.FAILED).order_by(*order)[: SHOWN + 1]
    failed = Deployment.objects.filter(pk__in=newest.values("pk")).select_related("agent")
    return {
        "failed_deployments": failed.order_by(*order),
        "deployments_by_status": count_rows(own),
    }


def find_failed(organization: Organization, rows: Rows) -> list[Item]:
    """Return an item for each of the newest failed deployments, and one for the rest.

    *Costs* the reads of read_last_error.
    """
    newest: list[Deployment] = rows["failed_deployments"]
    for each in newest:
        each.organization = organization
    items = [describe_failed(deployment) for deployment in newest[:SHOWN]]
    if len(newest) > SHOWN:
        url = f"{reverse('deployments:list', args=[organization.slug])}?status={Status.FAILED}"
        items.append(Item(Level.BAD, "failed", "Failed", "More deployments failed", "See all that failed", url))
    return items


def describe_failed(deployment: Deployment) -> Item:
    url = reverse("deployments:detail", args=[deployment.organization.slug, deployment.pk])
    if is_old(deployment.status_at):
        span = around_event(deployment.status_at)
        url += f"?{urlencode({'since': span.since, 'until': span.until})}"
    line = read_last_error(deployment.cloudwatch, deployment.status_at)
    return Item(
        Level.BAD,
        "failed",
        "Failed",
        f"{deployment.agent.name}: the deployment failed",
        "Read its logs" if line else "See why",
        f"{url}#logs" if line else url,
        reason=capfirst(deployment.error_message or "ECS gave no reason."),
        line=line or "",
        at=deployment.status_at,
    )


def is_old(failed_at: datetime) -> bool:
    """Return whether the link names the time, because the page's own window no longer has it."""
    return timezone.now() - failed_at > IN_LAST_HOUR


NEWEST_FAILED = f"""(
    SELECT json_agg(json_build_array(
        newest.id, newest.status_at, newest.revision, (SELECT name FROM deployments_agent WHERE id = newest.agent_id)
    ))
    FROM (
        SELECT id, status_at, revision, agent_id FROM deployments_deployment
        WHERE organization_id = %(organization)s AND status = '{Status.FAILED}'
        ORDER BY created_at DESC, id DESC LIMIT {SHOWN + 1}
    ) AS newest
)::text"""  # noqa: S608 - our own


def find_shown(newest_failed: str | None) -> object | None:
    """Return what the items show, from the column NEWEST_FAILED; None if the line of one is not read yet."""
    rows = json.loads(newest_failed) if newest_failed else []
    failed = [(key, datetime.fromisoformat(at)) for key, at, *_ in rows[:SHOWN]]
    lines = read_known_errors(failed)
    return None if lines is None else (newest_failed, lines, [is_old(at) for _, at in failed])


FAILED = Source(find_failed, NEWEST_FAILED, find_shown)
