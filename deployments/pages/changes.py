"""The rollouts of agents as bands on charts (portal/web/observe/changes.py): from an action to the state it led to."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from urllib.parse import urlencode
from uuid import UUID

from django.urls import reverse

from deployments.models import DeploymentEvent
from deployments.states import EventType
from portal.models import Organization
from portal.web.observe.changes import MOST, Change, Result
from portal.web.observe.time_window import around_event

# Events that are read to find MOST rollouts: a rollout has few. One that began earlier is not looked for.
MOST_EVENTS = 400
LONGEST = timedelta(hours=2)
# A revision and the event of its rollout are written in one transaction, the revision first.
ONE_TRANSACTION = timedelta(seconds=5)
# A deployment's settings may be large.
FIELDS = (
    *("event_type", "created_at", "deployment__agent__name"),
    *("deployment__target_revision__number", "deployment__target_revision__created_at"),
)
BEGINS = {EventType.CREATE: "deployed", EventType.RESTART: "restarted"}
ENDS = {
    EventType.READY: Result.SUCCESS,
    EventType.FAILED: Result.FAILED,
    EventType.STOP: Result.STOPPED,
    EventType.KILL: Result.STOPPED,
}


def list_changes(organization: Organization, since: datetime, until: datetime) -> list[Change]:
    """Return the newest rollouts of agents that overlap the window. *Costs* one query."""
    found = DeploymentEvent.objects.filter(
        organization=organization, created_at__gte=since - LONGEST, created_at__lt=until
    )
    related = found.select_related("deployment__agent", "deployment__target_revision")
    events = list(related.only(*FIELDS).order_by("-created_at", "-id")[:MOST_EVENTS])
    changes = [change for change in pair_events(reversed(events), organization.slug) if overlaps(change, since)]
    return sorted(changes, key=lambda change: change.began)[-MOST:]


def overlaps(change: Change, since: datetime) -> bool:
    return change.ended is None or change.ended >= since


def pair_events(events: Iterable[DeploymentEvent], slug: str) -> list[Change]:
    """Return a change for each begin among the events, oldest first, with the end that followed it.

    A new begin, or a person who stops the deployment, ends the one before it.
    """
    begins: dict[UUID, DeploymentEvent] = {}
    changes: list[Change] = []
    for event in events:
        kind = EventType(event.event_type)
        begin = begins.pop(event.deployment_id, None)
        if begin is not None and (kind in ENDS or kind in BEGINS):
            changes.append(make_change(begin, slug, ENDS.get(kind, Result.STOPPED), event.created_at))
        elif begin is not None:
            begins[event.deployment_id] = begin
        if kind in BEGINS:
            begins[event.deployment_id] = event
    return changes + [make_change(begin, slug, Result.RUNNING, None) for begin in begins.values()]


def make_change(begin: DeploymentEvent, slug: str, result: Result, ended: datetime | None) -> Change:
    """Return the change with the page of its revision, if that still is the deployment's, else of the deployment then."""
    deployment = begin.deployment
    agent, revision = deployment.agent, deployment.target_revision
    title = f"{agent.name} {BEGINS[EventType(begin.event_type)]}"
    if revision and begin.created_at - ONE_TRANSACTION <= revision.created_at <= begin.created_at:
        url = reverse("agents:revision", args=[slug, agent.pk, revision.number])
        return Change(result, f"{title}, revision {revision.number}", url, begin.created_at, ended)
    near = around_event(begin.created_at)
    query = urlencode({"since": near.since, "until": near.until, "at": begin.pk})
    url = f"{reverse('deployments:detail', args=[slug, deployment.pk])}?{query}"
    return Change(result, title, url, begin.created_at, ended)
