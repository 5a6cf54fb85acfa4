"""Notifications about agents' deployments: failed, recovered. portal/notifications delivers them.

Call each function in the transaction of the change it reports, before its event is written.
"""

from django.urls import reverse

from deployments.models import Deployment
from deployments.states import EventType, Status
from portal.models.notifications import NotificationKind
from portal.notifications import notify

# A failure counts as over with the first of these. A deployment that fails again and again is announced once.
OVER = (EventType.READY, EventType.CREATE, EventType.RESTART)


def notify_failed(deployment: Deployment, why: str) -> None:
    """Notify that the deployment failed, unless it has been neither ready nor restarted since it last failed."""
    if find_newest(deployment, EventType.FAILED, *OVER) == EventType.FAILED:
        return
    next_step = "Next: read its logs. Restart it when the cause is fixed, or return its agent to an earlier revision."
    text = f"{describe(deployment)} failed: {why}\n{next_step}"
    notify_deployment(deployment, NotificationKind.DEPLOYMENT_FAILED, Status.FAILED, text=text, error_message=why)


def notify_recovered(deployment: Deployment) -> None:
    """Notify that the deployment is ready, if it failed since it was last ready."""
    if find_newest(deployment, EventType.FAILED, EventType.READY) == EventType.FAILED:
        text = f"{describe(deployment)} is ready again: {deployment.replicas} of {deployment.replicas} tasks run."
        notify_deployment(deployment, NotificationKind.DEPLOYMENT_RECOVERED, Status.READY, text=text)


def find_newest(deployment: Deployment, *types: EventType) -> str | None:
    """Return the type of the deployment's newest event of these types. *Costs* one query."""
    rows = deployment.events.filter(event_type__in=types).order_by("-sequence")
    return rows.values_list("event_type", flat=True).first()


def describe(deployment: Deployment) -> str:
    version = f", {deployment.version}," if deployment.version else ""
    return f"Deployment {deployment.short_id} of {deployment.agent.name}{version}"


def notify_deployment(
    deployment: Deployment, kind: NotificationKind, status: Status, *, text: str, error_message: str | None = None
) -> None:
    """`status` is about to be written."""
    organization, name = deployment.organization, deployment.agent.name
    what = "failed" if kind == NotificationKind.DEPLOYMENT_FAILED else "recovered"
    notify(
        organization,
        kind,
        subject=str(deployment.pk),
        title=f"{organization.name} ({organization.environment}): {name} {what}",
        text=text,
        path=reverse("deployments:detail", args=[organization.slug, deployment.pk]),
        data={
            "deployment_id": str(deployment.pk),
            "agent_id": str(deployment.agent_id),
            "agent_name": name,
            "status": status,
            "version": deployment.version,
            "replicas": deployment.replicas,
            "error_message": error_message,
        },
    )
