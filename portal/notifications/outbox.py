"""The outbox: a message is a row for each channel that wants it, written in the transaction of what it tells of.

Either both are there or neither. From the commit on delivery.py sends it, whoever dies; nothing is sent from here.
"""

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models.functions import Coalesce, Now

from portal.models import Organization
from portal.models.notifications import (
    DeliveryStatus,
    Failure,
    NotificationChannel,
    NotificationDelivery,
    NotificationKind,
)

# Of one channel. What comes when so many wait is recorded as failed, and can be sent by hand when the line is short.
MOST_PENDING = 100


def notify(
    organization: Organization,
    kind: NotificationKind,
    *,
    subject: str,
    title: str,
    text: str,
    path: str,
    data: dict[str, Any],
) -> None:
    """Tell every active channel that subscribed to `kind`; call it inside the transaction of what it tells of.

    `subject`: id of what it is about. `title`: one line, `text`: sentences, both plain. `path`: of the page about it,
    from the root. `data`: more of a webhook's `data`; `organization`, `url` and the title come into it here. Absent
    values are None. A suspended organization is told nothing. Two queries at most.
    """
    # The lock keeps a channel from being removed until the caller has committed, and the count below true.
    channels = (
        NotificationChannel.objects.filter(
            organization=organization, organization__is_active=True, is_active=True, events__contains=[kind.value]
        )
        .annotate(pending=pending_of_channel())
        .select_for_update(of=("self",), no_key=True)
        .order_by("pk")
    )
    message = {
        "kind": kind,
        "subject": subject,
        "title": one_line(title),
        "text": text,
        "path": path,
        "data": {"organization": organization.slug, "title": one_line(title), **data, "url": link_to(path)},
    }
    NotificationDelivery.objects.bulk_create([delivery_for(channel, message) for channel in channels])


def pending_of_channel() -> Coalesce:
    """How many messages wait for the channel of the outer query."""
    pending = NotificationDelivery.objects.pending().filter(channel=models.OuterRef("pk")).order_by()
    counted = pending.values("channel").annotate(count=models.Count("pk")).values("count")
    return Coalesce(models.Subquery(counted), 0)


def delivery_for(channel: Any, message: dict[str, Any]) -> NotificationDelivery:
    """The row, due at once. `channel` is annotated with how many are `pending`."""
    delivery = NotificationDelivery(channel=channel, organization_id=channel.organization_id, **message)
    if channel.pending >= MOST_PENDING:
        delivery.status, delivery.failure, delivery.ended_at = DeliveryStatus.FAILED, Failure.QUEUE_FULL, Now()
    else:
        delivery.next_check_at = Now()
    return delivery


def link_to(path: str) -> str | None:
    """The address of a page for people who are not in the portal; None where the portal does not know its own."""
    return f"{settings.PORTAL_URL}{path}" if settings.PORTAL_URL else None


def one_line(text: str) -> str:
    """Without line breaks and control characters, 200 characters at most: fit for a subject."""
    plain = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(plain.split())[:200]
