"""What the tests of notifications share: channels made without a form."""

from typing import Any

from django.db import transaction

from portal.models import Organization, User
from portal.notifications import notify
from portal.notifications.models import SUBSCRIBABLE, NotificationChannel, NotificationDelivery, NotificationKind
from portal.notifications.sealing import seal

# 24 bytes, as Standard Webhooks ask for at least.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TARGETS = {
    "webhook": "https://hooks.example.com/in?key=webhook-target-secret",
    "slack": "https://hooks.slack.com/services/T000/B000/slack-target-secret",
    "email": "one@example.com,two@example.com",
}


def make_channel(
    organization: Organization, *, by: User, kind: str = "webhook", target: str = "", **fields: Any
) -> NotificationChannel:
    """A channel that wants everything."""
    made = {"name": f"Our {kind}", "events": [each.value for each in SUBSCRIBABLE]} | fields
    return NotificationChannel.objects.create(
        organization=organization,
        kind=kind,
        sealed_target=seal(target or TARGETS[kind]),
        sealed_secret=seal(SECRET) if kind == "webhook" else "",
        created_by=by,
        **made,
    )


def tell(organization: Organization, kind: NotificationKind = NotificationKind.UPGRADE_ENDED, **more: Any) -> None:
    """What an app does: notify in a transaction of its own."""
    message: dict[str, Any] = {
        "subject": "upgrade-2026-1121-195422-50d288",
        "title": f"{organization.name}: upgrade ended PARTIAL",
        "text": "Agent service advanced, orchestrator did not.",
        "path": f"/o/{organization.slug}/upgrades/upgrade-2026-1121-195422-50d288/",
        "data": {"upgrade_id": "upgrade-2026-1121-195422-50d288", "status": "PARTIAL"},
    }
    with transaction.atomic():
        notify(organization, kind, **message | more)


def deliveries(channel: NotificationChannel) -> list[NotificationDelivery]:
    """Oldest first."""
    return list(channel.deliveries.order_by("created_at", "pk"))
