"""Commands of an organization's admins on its channels, with the rules about roles and states.

Each command calls `require`, runs in one transaction and writes the audit row in it. Audit rows and logs never contain
a target's path or a secret.
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
from portal.errors import PortalError, found_or_404, is_unique_violation
from portal.idempotency import KeyUse
from portal.models import AuditKind, Organization, Role, User
from portal.models.notifications import (
    ChannelKind,
    DeliveryStatus,
    NotificationChannel,
    NotificationDelivery,
    NotificationKind,
)
from portal.notifications.delivery import end_pending
from portal.notifications.messages import new_secret
from portal.notifications.outbox import (
    MAX_PENDING,
    count_pending,
    delivery_for,
    link_to,
)
from portal.notifications.quiet import QuietHours, get_quiet_hours, like
from portal.sealing import seal

MAX_CHANNELS = 20
TEST_SECONDS = 10
# The old secret signs too for this long, while receivers switch (Standard Webhooks, "zero downtime secret rotation").
OLD_SECRET_LASTS = timedelta(hours=24)


class Created(NamedTuple):
    """The result of `create_channel`. `secret` is to be shown once; None for other kinds and repeated requests."""

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
    quiet: QuietHours | None = None,
    idempotency_key: str | None = None,
) -> Created:
    """Add a channel. It receives notifications from now on.

    *Raises* PortalError: 403, 404, 409 `name_taken`, `too_many_channels`, `already_removed`, 422
    `idempotency_mismatch`.
    """
    require(actor, organization, Role.ADMIN)
    request = {"kind": kind, "name": name, "target": target, "events": events, "quiet": str(quiet) if quiet else None}
    key = KeyUse.for_request("create_channel", request, organization=organization, user=actor, key=idempotency_key)
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
    set_quiet_hours(channel, quiet)
    with unique_name(name), transaction.atomic():
        # One at a time, so that a duplicate request finds what the first one created, and the count is correct.
        Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        earlier = find_earlier_channel(organization, key)
        if earlier:
            return Created(earlier, None)
        if NotificationChannel.objects.filter(organization=organization).count() >= MAX_CHANNELS:
            message = f"{organization.name} already has {MAX_CHANNELS} channels, the maximum. Remove one first."
            raise PortalError("too_many_channels", message, 409)
        channel.save(force_insert=True)
        key.store(str(channel.pk))
        audit(AuditKind.CHANNEL_CREATED, channel, actor, {"target": channel.masked_target, "events": events})
    return Created(channel, secret)


def find_earlier_channel(organization: Organization, key: KeyUse) -> NotificationChannel | None:
    """Return the channel that the same request created before. Raises PortalError 409 `already_removed`."""
    subject = key.find_earlier()
    if subject is None:
        return None
    earlier = NotificationChannel.objects.filter(organization=organization, pk=subject).first()
    if earlier is None:
        message = "The channel that this request created has since been removed. Open the form again to add another."
        raise PortalError("already_removed", message, 409)
    return earlier


def set_quiet_hours(channel: NotificationChannel, quiet: QuietHours | None) -> None:
    channel.quiet_from, channel.quiet_until = (quiet.begin, quiet.end) if quiet else (None, None)
    channel.quiet_zone = quiet.zone if quiet else "UTC"


def change_channel(
    channel: NotificationChannel,
    *,
    actor: User,
    name: str,
    events: list[str],
    target: str | None = None,
    quiet: QuietHours | None = None,
) -> None:
    """Change name, events, target and quiet hours. A target of None keeps the current one. Equal values are a no-op.

    Messages that wait for the end of the earlier quiet hours, and were not tried yet, are considered again.

    *Raises* PortalError: 403, 404, 409 `name_taken`.
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
        before_hours = get_quiet_hours(locked)
        if quiet != before_hours:
            changes["quiet_hours"] = {"before": str(before_hours or "none"), "after": str(quiet or "none")}
            set_quiet_hours(locked, quiet)
            locked.deliveries.pending().filter(tries=0, next_check_at__gt=Now()).update(next_check_at=Now())
        if not changes:
            return
        locked.name, locked.events = name, events
        locked.save(update_fields=["name", "events", "sealed_target", "quiet_from", "quiet_until", "quiet_zone"])
        audit(AuditKind.CHANNEL_CHANGED, locked, actor, {"changes": changes})


def switch_channel(channel: NotificationChannel, *, actor: User, is_active: bool) -> None:
    """Switch the channel on or off. Switching off fails its waiting messages. Raises PortalError: 403, 404."""
    require(actor, channel.organization, Role.ADMIN)
    with transaction.atomic():
        locked = lock(channel)
        if locked.is_active == is_active:
            return
        locked.is_active, locked.off_reason = is_active, ""
        locked.save(update_fields=["is_active", "off_reason"])
        if not is_active:
            end_pending(locked)
        audit(AuditKind.CHANNEL_CHANGED, locked, actor, {"is_active": is_active})


def renew_secret(channel: NotificationChannel, *, actor: User, idempotency_key: str | None = None) -> str | None:
    """Return a new signing secret, to be shown once. The previous one signs too for a day, if it can be read.

    *Returns* None for a repeated request, because a double click must not expire the secret that receivers have.
    *Raises* PortalError: 403, 404, 409 `no_secret` for other kinds than webhooks, 422 `idempotency_mismatch`.
    """
    organization = channel.organization
    require(actor, organization, Role.ADMIN)
    if channel.kind != ChannelKind.WEBHOOK:
        raise PortalError("no_secret", f"{channel.name} is not a webhook, so its messages are not signed.", 409)
    request = {"channel": str(channel.pk)}
    key = KeyUse.for_request("renew_secret", request, organization=organization, user=actor, key=idempotency_key)
    secret = new_secret()
    with transaction.atomic():
        locked = lock(channel)
        if key.find_earlier():
            return None
        key.store(str(channel.pk))
        old = (locked.sealed_secret, Now() + OLD_SECRET_LASTS) if locked.can_sign else ("", None)
        locked.sealed_secret, (locked.sealed_old_secret, locked.old_secret_until) = seal(secret), old
        locked.save(update_fields=["sealed_secret", "sealed_old_secret", "old_secret_until"])
        audit(AuditKind.CHANNEL_CHANGED, locked, actor, {"secret": "renewed"})
    return secret


def remove_channel(channel: NotificationChannel, *, actor: User) -> None:
    """Remove the channel with its log and its waiting messages. Raises PortalError: 403, 404."""
    require(actor, channel.organization, Role.ADMIN)
    with transaction.atomic():
        # Take the lock first. Writers of messages to this channel wait for it (outbox.py).
        found = NotificationChannel.objects.select_for_update().filter(pk=channel.pk).first()
        if found is None:
            return
        audit(AuditKind.CHANNEL_REMOVED, found, actor, {"target": found.masked_target})
        found.delete()


def test_channel(channel: NotificationChannel, *, actor: User) -> NotificationDelivery:
    """Queue a test message, at most one per TEST_SECONDS. Also works for a channel that is switched off.

    *Raises* PortalError: 403, 404, 429 `tested_already`.
    """
    organization = channel.organization
    require(actor, organization, Role.ADMIN)
    path = reverse("settings:channel", args=[organization.slug, channel.pk])
    title = f"{organization.name} ({organization.environment}): test"
    with transaction.atomic():
        lock(channel)
        long_ago = Q(tested_at__isnull=True) | Q(tested_at__lt=Now() - timedelta(seconds=TEST_SECONDS))
        if not NotificationChannel.objects.filter(long_ago, pk=channel.pk).update(tested_at=Now()):
            message = f"{channel.name} was tested less than {TEST_SECONDS} seconds ago. Try again in a few seconds."
            raise PortalError("tested_already", message, 429, retry_after=TEST_SECONDS)
        pending = NotificationChannel.objects.values_list(
            count_pending(like(NotificationKind.TEST, {})), flat=True
        ).get(pk=channel.pk)
        message_row = delivery_for(
            organization,
            channel.pk,
            pending,
            {
                "kind": NotificationKind.TEST,
                "subject": str(channel.pk),
                "title": title,
                "text": f"{actor.email} sent this test to the channel {channel.name}. You do not need to do anything.",
                "path": path,
                "data": {"organization": organization.slug, "title": title, "actor": actor.email, "url": link_to(path)},
            },
        )
        message_row.save(force_insert=True)
        audit(AuditKind.CHANNEL_TESTED, channel, actor, {"delivery": str(message_row.pk)})
    return message_row


def send_again(delivery: NotificationDelivery, *, actor: User) -> None:
    """Queue a failed message again, with its id and its earlier attempts.

    *Raises* PortalError: 403, 404, 409 `not_failed`, `is_a_test`, `channel_off`, `queue_full`.
    """
    channel = delivery.channel
    require(actor, delivery.organization, Role.ADMIN)
    refusal = find_resend_refusal(delivery)
    if refusal:
        raise refusal
    with transaction.atomic():
        failed = NotificationDelivery.objects.filter(
            pk=delivery.pk, status=DeliveryStatus.FAILED, channel__is_active=True
        )
        again = failed.update(status=DeliveryStatus.PENDING, tries=0, ended_at=None, next_check_at=Now())
        if not again:
            raise PortalError("not_failed", "The message is no longer failed, so it cannot be sent again.", 409)
        audit(AuditKind.CHANNEL_CHANGED, channel, actor, {"sent_again": str(delivery.pk), "subject": delivery.subject})


def find_resend_refusal(delivery: NotificationDelivery) -> PortalError | None:
    """Return the error; None if it may be sent again. *Costs* one query for a failed message."""
    if delivery.kind == NotificationKind.TEST:
        return PortalError("is_a_test", "A test cannot be sent again. Send a new one.", 409)
    if delivery.status != DeliveryStatus.FAILED:
        status = delivery.get_status_display().lower()
        return PortalError("not_failed", f"The message is {status}, so it cannot be sent again.", 409)
    if not delivery.channel.is_active:
        return PortalError("channel_off", f"{delivery.channel.name} is switched off. Switch it on first.", 409)
    as_urgent = delivery.channel.deliveries.pending().filter(like(delivery.kind, delivery.data))
    if as_urgent.count() >= MAX_PENDING:
        message = f"{MAX_PENDING} messages are already waiting for {delivery.channel.name}."
        return PortalError("queue_full", message, 409)
    return None


def lock(channel: NotificationChannel) -> NotificationChannel:
    """Read the channel again and lock it for this transaction. Raises PortalError 404 if it is gone."""
    rows = NotificationChannel.objects.select_related("organization").select_for_update(of=("self",), no_key=True)
    return found_or_404(rows.filter(pk=channel.pk).first())


@contextmanager
def unique_name(name: str) -> Iterator[None]:
    """Translate the database's unique violation of a channel name into PortalError 409 `name_taken`."""
    try:
        yield
    except IntegrityError as error:
        if not is_unique_violation(error, "channel_name_once"):
            raise
        message = f"A channel named {name} already exists. Choose another name."
        raise PortalError("name_taken", message, 409, errors={"name": [message]}) from error


def audit(kind: AuditKind, channel: NotificationChannel, actor: User, data: dict[str, Any]) -> None:
    about = {"name": channel.name, "kind": channel.kind}
    record(kind, organization=channel.organization, actor=actor, subject=str(channel.pk), data=about | data)
