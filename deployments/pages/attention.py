"""The deployments that need attention on the overview: those that failed, with the last line that says why."""

from datetime import timedelta
from urllib.parse import urlencode

from django.urls import reverse
from django.utils import timezone

from deployments.models import Deployment
from deployments.states import Status
from portal.cloudwatch.last_error import read_last_error
from portal.models import Organization
from portal.web.attention import Item, Level
from portal.web.observe.time_window import around_event

SHOWN = 3
# A newer failure is in the page's own window, the last hour.
IN_LAST_HOUR = timedelta(minutes=50)


def find_failed(organization: Organization) -> list[Item]:
    """Return an item for each of the newest failed deployments, and one for the rest.

    *Costs* one query, however many there are, and the reads of read_last_error.
    """
    failed = Deployment.objects.matching(organization, status=Status.FAILED).select_related("agent", "organization")
    newest = list(failed.order_by("-created_at", "-id")[: SHOWN + 1])
    items = [describe_failed(deployment) for deployment in newest[:SHOWN]]
    if len(newest) > SHOWN:
        url = f"{reverse('deployments:list', args=[organization.slug])}?status={Status.FAILED}"
        items.append(Item(Level.BAD, "failed", "Failed", "More deployments failed", "See all that failed", url))
    return items


def describe_failed(deployment: Deployment) -> Item:
    url = reverse("deployments:detail", args=[deployment.organization.slug, deployment.pk])
    if timezone.now() - deployment.status_at > IN_LAST_HOUR:
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
        reason=sentence(deployment.error_message or "ECS gave no reason."),
        line=line or "",
        at=deployment.status_at,
    )


def sentence(text: str) -> str:
    """Return the text with a capital letter first.

    >>> sentence("container exited with code 1: Essential container in task exited")
    'Container exited with code 1: Essential container in task exited'
    """
    return text[:1].upper() + text[1:]
