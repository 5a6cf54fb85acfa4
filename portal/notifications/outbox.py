"""The outbox: one row per message and subscribed channel, written in the same transaction as the change it describes.

Both are committed or neither. After the commit delivery.py sends the message, even after a crash. Nothing is sent here.
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

# The most waiting messages of one channel. Further ones are recorded as failed, and can be sent again by hand later.
MAX_PENDING = 100


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
    """Queue a message for every active channel that is subscribed to `kind`.

    Call this inside the transaction of the change that the message describes. Channels of a suspended organization get
    nothing.

    `subject`: the id of the object. `title`: one line, and `text`: sentences, both plain text. `path`: the path of its
    page, from the root. `data`: further keys of a webhook's `data`, with None for absent values; `organization`, `url`
    and the title are added here.

    *Costs* at most two queries.
    """
    # The lock prevents removal of a channel until the caller commits, and keeps the count below correct.
    channels = (
        NotificationChannel.objects.filter(
            organization=organization, organization__is_active=True, is_active=True, events__contains=[kind.value]
        )
        .annotate(pending=count_pending())
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


def count_pending() -> Coalesce:
    """Return an expression: the number of messages that wait for the channel of the outer query."""
    pending = NotificationDelivery.objects.pending().filter(channel=models.OuterRef("pk")).order_by()
    counted = pending.values("channel").annotate(count=models.Count("pk")).values("count")
    return Coalesce(models.Subquery(counted), 0)


def delivery_for(channel: Any, message: dict[str, Any]) -> NotificationDelivery:
    """Return the row, due immediately. `channel` must be annotated with the number of `pending` messages."""
    delivery = NotificationDelivery(channel=channel, organization_id=channel.organization_id, **message)
    if channel.pending >= MAX_PENDING:
        delivery.status, delivery.failure, delivery.ended_at = DeliveryStatus.FAILED, Failure.QUEUE_FULL, Now()
    else:
        delivery.next_check_at = Now()
    return delivery


def link_to(path: str) -> str | None:
    """Return the absolute URL of a page; None if PORTAL_URL is not set."""
    return f"{settings.PORTAL_URL}{path}" if settings.PORTAL_URL else None


def one_line(text: str) -> str:
    """Return the text without line breaks and control characters, cut to 200 characters, for use as a subject."""
    plain = "".join(each if each.isprintable() else " " for each in text)
    return " ".join(plain.split())[:200]
