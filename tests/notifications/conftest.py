"""Fixtures for the tests of notifications: channels created without a form."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.db.models.functions import Now
from standardwebhooks import Webhook, WebhookVerificationError

from portal import tenancy
from portal.leases import Claim
from portal.models import Organization, User
from portal.models.notifications import SUBSCRIBABLE, NotificationChannel, NotificationDelivery, NotificationKind
from portal.notifications import notify
from portal.notifications.delivery import SEND_SECONDS, SENDERS, idle, send, sweep
from portal.sealing import seal
from tests.outside import Outside, Talk, as_json, outside

# 24 bytes, the minimum of Standard Webhooks.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TARGETS = {
    "webhook": "https://hooks.example.com/in?key=webhook-target-secret",
    "slack": "https://hooks.slack.com/services/T000/B000/slack-target-secret",
    "email": "one@example.com,two@example.com",
}


def make_channel(
    organization: Organization, *, by: User, kind: str = "webhook", target: str = "", **fields: Any
) -> NotificationChannel:
    """Create a channel that is subscribed to all events."""
    made = {"name": f"Our {kind}", "events": [each.value for each in SUBSCRIBABLE]} | fields
    return NotificationChannel.objects.create(
        organization=organization,
        kind=kind,
        sealed_target=seal(target or TARGETS[kind]),
        sealed_secret=seal(SECRET) if kind == "webhook" else "",
        created_by=by,
        **made,
    )


def send_notification(
    organization: Organization, kind: NotificationKind = NotificationKind.UPGRADE_ENDED, **more: Any
) -> None:
    """Call notify in its own transaction, as an app does."""
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
    """Return all deliveries, oldest first."""
    return list(channel.deliveries.order_by("created_at", "pk"))


@pytest.fixture
def receiver() -> Iterator[Outside]:
    """Start a webhook receiver at 127.0.0.1 that accepts requests to /in."""
    with outside() as server:
        server.answers["/in"] = as_json({"ok": True}, status=204)
        yield server


def statuses(*each: int) -> Talk:
    """Answer with these statuses one after the other. The last one repeats."""
    left = list(each)

    def talk(connection: Any, request: str) -> None:
        status = left.pop(0) if len(left) > 1 else left[0]
        as_json({"secret": "of the receiver"}, status=status)(connection, request)

    return talk


def deliver(delivery: NotificationDelivery) -> bool:
    """Send it as a sender does, but on this thread. Return whether it could be claimed now."""
    ready = NotificationDelivery.objects.ready().filter(pk=delivery.pk).select_related("channel__organization")
    for lease in Claim(lambda: ready).take():
        send(lease)
        return True
    return False


def sweep_and_wait() -> None:
    """Run one sweep and wait until its senders are idle again."""
    with tenancy.inside(tenancy.NOTHING):
        sweep()
    wait_for_senders()


def wait_for_senders() -> None:
    for _ in range(SENDERS):
        assert idle.acquire(timeout=SEND_SECONDS + 5)
    idle.release(SENDERS)


def deliver_now(delivery: NotificationDelivery) -> NotificationDelivery:
    """Make it due and free, send it, and return the row afterwards."""
    NotificationDelivery.objects.filter(pk=delivery.pk, next_check_at__isnull=False).update(
        next_check_at=Now(), lease_until=None
    )
    assert deliver(delivery)
    delivery.refresh_from_db()
    return delivery


def get_head(request: str) -> dict[str, str]:
    lines = request.partition("\r\n\r\n")[0].split("\r\n")[1:]
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


def get_body(request: str) -> str:
    return request.partition("\r\n\r\n")[2]


def is_signed(request: str, secret: str) -> bool:
    """Check signature and time as a receiver does: with the library of Standard Webhooks, not with our code."""
    try:
        Webhook(secret).verify(get_body(request), get_head(request))
    except WebhookVerificationError:
        return False
    return True
