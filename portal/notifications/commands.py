"""What admins of an organization do to its channels. The rules about role and state live here.

Each command: `require` first, one transaction, the audit row in it. Neither audit row nor log ever holds a target's path
or a secret.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.urls import reverse

from portal.access import require
from portal.audit import record
from portal.errors import PortalError, existing, is_unique_violation
from portal.idempotency import KeyUse
from portal.models import AuditKind, Organization, Role, User
from portal.models.notifications import (
    ChannelKind,
    DeliveryStatus,
    NotificationChannel,
    NotificationDelivery,
    NotificationKind,
)
from portal.notifications.delivery import end_waiting
from portal.notifications.messages import new_secret
from portal.notifications.outbox import (
    MOST_PENDING,
    delivery_for,
    link_to,
    pending_of_channel,
)
from portal.sealing import seal

MOST_CHANNELS = 20
TEST_SECONDS = 10
# While receivers change over, both secrets sign (Standard Webhooks, "zero downtime secret rotation").
OLD_SECRET_LASTS = timedelta(hours=24)


class Created(NamedTuple):
    """`secret`: what signs a webhook, to be shown this once; None for other kinds, and for a request sent again."""

    channel: NotificationChannel
    secret: str | None


def create_channel(
    organization: Organization,
    *,
    actor: User,
    kind: ChannelKind,
    name: str,
    target: str,
    events: list[str],
    idempotency_key: str | None = None,
) -> Created:
    """Add a channel; it is told from then on.

    Raises PortalError: 403, 404, 409 `name_taken`, `too_many_channels`, `already_removed`, 422 `idempotency_mismatch`.
    """
    require(actor, organization, Role.ADMIN)
    request = {"kind": kind, "name": name, "target": target, "events": events}
    key = KeyUse.of("create_channel", request, organization=organization, user=actor, key=idempotency_key)
    secret = new_secret() if kind == ChannelKind.WEBHOOK else None
    channel = NotificationChannel(
        organization=organization,
        kind=kind,
        name=name,
        sealed_target=seal(target),
        sealed_secret=seal(secret) if secret else "",
        events=events,
        created_by=actor,
    )
    with unique_name(name), transaction.atomic():
        # One at a time: of a request that comes twice at once the second finds what the first made, and the count is true.
        Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        earlier = earlier_channel(organization, key)
        if earlier:
            return Created(earlier, None)
        if NotificationChannel.objects.filter(organization=organization).count() >= MOST_CHANNELS:
            message = f"{organization.name} has {MOST_CHANNELS} channels, and may not have more. Remove one first."
            raise PortalError("too_many_channels", message, 409)
        channel.save(force_insert=True)
        key.keep(str(channel.pk))
        audit(AuditKind.CHANNEL_CREATED, channel, actor, {"target": channel.masked_target, "events": events})
    return Created(channel, secret)


def earlier_channel(organization: Organization, key: KeyUse) -> NotificationChannel | None:
    """What the same request made before. Raises PortalError 409 `already_removed`."""
    subject = key.find_earlier()
    if subject is None:
        return None
    earlier = NotificationChannel.objects.filter(organization=organization, pk=subject).first()
    if earlier is None:
        message = (
            "This request made its channel already, and that was removed since. Open the form anew to add another."
        )
        raise PortalError("already_removed", message, 409)
    return earlier


def change_channel(
    channel: NotificationChannel, *, actor: User, name: str, events: list[str], target: str | None = None
) -> None:
    """Give it another name, other events, another target (None: the one it has). What is the same changes nothing.

    Raises PortalError: 403, 404, 409 `name_taken`.
    """
    require(actor, channel.organization, Role.ADMIN)
    with unique_name(name), transaction.atomic():
        locked = lock(channel)
        changes: dict[str, Any] = {}
        if name != locked.name:
            changes["name"] = {"before": locked.name, "after": name}
        if events != locked.events:
            changes["events"] = {"before": locked.events, "after": events}
        if target is not None and target != locked.target:
            before = locked.masked_target
            locked.target = target
            changes["target"] = {"before": before, "after": locked.masked_target}
        if not changes:
            return
        locked.name, locked.events = name, events
        locked.save(update_fields=["name", "events", "sealed_target"])
        audit(AuditKind.CHANNEL_CHANGED, locked, actor, {"changes": changes})


def switch_channel(channel: NotificationChannel, *, actor: User, is_active: bool) -> None:
    """On or off. What waits for a channel that is switched off is not sent any more. Raises PortalError: 403, 404."""
    require(actor, channel.organization, Role.ADMIN)
    with transaction.atomic():
        locked = lock(channel)
        if locked.is_active == is_active:
            return
        locked.is_active, locked.off_reason = is_active, ""
        locked.save(update_fields=["is_active", "off_reason"])
        if not is_active:
            end_waiting(locked)
        audit(AuditKind.CHANNEL_CHANGED, locked, actor, {"is_active": is_active})


def renew_secret(channel: NotificationChannel, *, actor: User, idempotency_key: str | None = None) -> str | None:
    """Another signing secret, to be shown this once; the one before signs too for a day, if it can be read.

    None for a request that was sent again: a double click must not push out the secret that receivers have. Raises
    PortalError: 403, 404, 409 `no_secret` for what is no webhook, 422 `idempotency_mismatch`.
    """
    organization = channel.organization
    require(actor, organization, Role.ADMIN)
    if channel.kind != ChannelKind.WEBHOOK:
        raise PortalError("no_secret", f"{channel.name} is no webhook: nothing signs what it is sent.", 409)
    request = {"channel": str(channel.pk)}
    key = KeyUse.of("renew_secret", request, organization=organization, user=actor, key=idempotency_key)
    secret = new_secret()
    with transaction.atomic():
        locked = lock(channel)
        if key.find_earlier():
            return None
        key.keep(str(channel.pk))
        old = (locked.sealed_secret, Now() + OLD_SECRET_LASTS) if locked.can_sign else ("", None)
        locked.sealed_secret, (locked.sealed_old_secret, locked.old_secret_until) = seal(secret), old
        locked.save(update_fields=["sealed_secret", "sealed_old_secret", "old_secret_until"])
        audit(AuditKind.CHANNEL_CHANGED, locked, actor, {"secret": "renewed"})
    return secret


def remove_channel(channel: NotificationChannel, *, actor: User) -> None:
    """With its log, and with what waits for it. Raises PortalError: 403, 404."""
    require(actor, channel.organization, Role.ADMIN)
    with transaction.atomic():
        # First the lock, for which whoever writes a message to it waits (outbox.py).
        found = NotificationChannel.objects.select_for_update().filter(pk=channel.pk).first()
        if found is None:
            return
        audit(AuditKind.CHANNEL_REMOVED, found, actor, {"target": found.masked_target})
        found.delete()


def test_channel(channel: NotificationChannel, *, actor: User) -> NotificationDelivery:
    """Write a test message to the outbox, one each TEST_SECONDS; also to a channel that is switched off.

    Raises PortalError: 403, 404, 429 `tested_already`.
    """
    organization = channel.organization
    require(actor, organization, Role.ADMIN)
    path = reverse("settings:channel", args=[organization.slug, channel.pk])
    title = f"{organization.name} ({organization.environment}): test"
    with transaction.atomic():
        lock(channel)
        long_ago = Q(tested_at__isnull=True) | Q(tested_at__lt=Now() - timedelta(seconds=TEST_SECONDS))
        if not NotificationChannel.objects.filter(long_ago, pk=channel.pk).update(tested_at=Now()):
            message = f"{channel.name} was tested a moment ago. One test each {TEST_SECONDS} seconds; wait, and look."
            raise PortalError("tested_already", message, 429, retry_after=TEST_SECONDS)
        locked = NotificationChannel.objects.annotate(pending=pending_of_channel()).get(pk=channel.pk)
        message_row = delivery_for(
            locked,
            {
                "kind": NotificationKind.TEST,
                "subject": str(channel.pk),
                "title": title,
                "text": f"{actor.email} tests the channel {channel.name}. Nothing happened; nothing is to be done.",
                "path": path,
                "data": {"organization": organization.slug, "title": title, "actor": actor.email, "url": link_to(path)},
            },
        )
        message_row.save(force_insert=True)
        audit(AuditKind.CHANNEL_TESTED, channel, actor, {"delivery": str(message_row.pk)})
    return message_row


def send_again(delivery: NotificationDelivery, *, actor: User) -> None:
    """Put a message that failed back into the outbox, under its own id and with all its tries before it.

    Raises PortalError: 403, 404, 409 `not_failed`, `is_a_test`, `channel_off`, `queue_full`.
    """
    channel = delivery.channel
    require(actor, delivery.organization, Role.ADMIN)
    refusal = why_not_again(delivery)
    if refusal:
        raise PortalError(*refusal, 409)
    with transaction.atomic():
        failed = NotificationDelivery.objects.filter(
            pk=delivery.pk, status=DeliveryStatus.FAILED, channel__is_active=True
        )
        again = failed.update(status=DeliveryStatus.PENDING, tries=0, ended_at=None, next_check_at=Now())
        if not again:
            raise PortalError("not_failed", "It has not failed, or not any more: there is nothing to send again.", 409)
        audit(AuditKind.CHANNEL_CHANGED, channel, actor, {"sent_again": str(delivery.pk), "subject": delivery.subject})


def why_not_again(delivery: NotificationDelivery) -> tuple[str, str] | None:
    """Code and sentence; None when it may be sent again. One query for what failed."""
    if delivery.kind == NotificationKind.TEST:
        return "is_a_test", "It was a test. Send a new one."
    if delivery.status != DeliveryStatus.FAILED:
        return "not_failed", f"It is {delivery.get_status_display().lower()}: there is nothing to send again."
    if not delivery.channel.is_active:
        return "channel_off", f"{delivery.channel.name} is switched off. Switch it on first."
    if delivery.channel.deliveries.pending().count() >= MOST_PENDING:
        return "queue_full", f"{MOST_PENDING} messages wait for {delivery.channel.name} already."
    return None


def lock(channel: NotificationChannel) -> NotificationChannel:
    """As it is now, and nobody else changes or removes it in this transaction. Raises PortalError 404 when it is gone."""
    rows = NotificationChannel.objects.select_related("organization").select_for_update(of=("self",), no_key=True)
    return existing(rows.filter(pk=channel.pk).first())


@contextmanager
def unique_name(name: str) -> Iterator[None]:
    """Turns the database's refusal of a name that the organization has already into ours."""
    try:
        yield
    except IntegrityError as error:
        if not is_unique_violation(error, "channel_name_once"):
            raise
        message = f"There is a channel called {name} already. Choose another name."
        raise PortalError("name_taken", message, 409, errors={"name": [message]}) from error


def audit(kind: AuditKind, channel: NotificationChannel, actor: User, data: dict[str, Any]) -> None:
    about = {"name": channel.name, "kind": channel.kind}
    record(kind, organization=channel.organization, actor=actor, subject=str(channel.pk), data=about | data)
