"""The outbox: one row per message and subscribed channel, written in the same transaction as the change it describes.

Both are committed or neither. After the commit delivery.py sends the message, even after a crash. Nothing is sent here.
"""

from functools import cache
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import models
from django.db.models.functions import Coalesce, Now

from portal.database.statements import Given, Statement
from portal.models import Organization
from portal.models.notifications import (
    DeliveryStatus,
    Failure,
    NotificationChannel,
    NotificationDelivery,
    NotificationKind,
)
from portal.notifications.quiet import like

# The most waiting messages of one channel, and as many urgent ones: those that quiet hours hold must not keep these out.
# Further ones are recorded as failed, and can be sent again by hand later.
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
    channels = make_channels(kind, data.get("status")).read(organization=organization.pk)
    message = {
        "kind": kind,
        "subject": subject,
        "title": one_line(title),
        "text": text,
        "path": path,
        "data": {"organization": organization.slug, "title": one_line(title), **data, "url": link_to(path)},
    }
    NotificationDelivery.objects.bulk_create(
        [delivery_for(organization, channel_id, pending, message) for channel_id, pending in channels]
    )


@cache
def make_channels(kind: NotificationKind, status: str | None) -> Statement:
    """Return the statement of the subscribed channels of an organization, which locks them.

    Its rows are the id, and how many messages wait that are as urgent as one of this kind and status.
    """
    channels = NotificationChannel.objects.filter(
        organization=Given("organization"), organization__is_active=True, is_active=True, events__contains=[kind.value]
    )
    locked = channels.select_for_update(of=("self",), no_key=True)
    return Statement(locked.order_by("pk").values_list("pk", count_pending(like(kind, {"status": status}))))


def count_pending(condition: models.Q) -> Coalesce:
    """Return an expression: how many messages that meet the condition wait for the channel of the outer query."""
    pending = NotificationDelivery.objects.pending().filter(condition, channel=models.OuterRef("pk")).order_by()
    counted = pending.values("channel").annotate(count=models.Count("pk")).values("count")
    return Coalesce(models.Subquery(counted), 0)


def delivery_for(
    organization: Organization, channel_id: UUID, pending: int, message: dict[str, Any]
) -> NotificationDelivery:
    """Return the row, due immediately. `pending`: how many messages wait for the channel that are as urgent."""
    delivery = NotificationDelivery(channel_id=channel_id, organization=organization, **message)
    if pending >= MAX_PENDING:
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
