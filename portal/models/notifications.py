"""Notification channels, and the outbox: one row per message and channel."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self
from urllib.parse import urlsplit

from django.db import models
from django.db.models.functions import Lower, Now
from django.utils import timezone

from portal.leases import Leased, due
from portal.models.people import Organization, TenantQuerySet, User
from portal.sealing import seal, unseal

UNREADABLE = "not readable, because SECRET_KEY was changed. Enter it again."
# The most deliveries of one organization in flight (of one channel: one). Receivers that never answer occupy at most
# this many sender threads (delivery.py), so they barely delay its other channels and other organizations.
IN_FLIGHT_PER_ORGANIZATION = 2


class ChannelKind(models.TextChoices):
    WEBHOOK = "webhook", "Webhook"
    SLACK = "slack", "Slack"
    EMAIL = "email", "E-mail"

    @property
    def inline_label(self) -> str:
        return self.label if self == ChannelKind.SLACK else self.label.lower()


class NotificationKind(models.TextChoices):
    """Kinds of notification: the `type` in a webhook's body. A test is sent to its channel without a subscription."""

    UPGRADE_STARTED = "upgrade.started", "Upgrade started"
    UPGRADE_ENDED = "upgrade.ended", "Upgrade ended"
    UPGRADE_STALLED = "upgrade.stalled", "Rollout stalled"
    UPGRADE_OVERDUE = "upgrade.overdue", "Rollout overdue"
    UPGRADE_WAITING = "upgrade.waiting", "Pause waits for a decision"
    UPGRADE_VALIDATION_MISSING = "upgrade.validation_missing", "Validation missing"
    DEPLOYMENT_FAILED = "deployment.failed", "Deployment failed"
    DEPLOYMENT_RECOVERED = "deployment.recovered", "Deployment recovered"
    TEST = "notification.test", "Test"


SUBSCRIBABLE = [kind for kind in NotificationKind if kind != NotificationKind.TEST]


class DeliveryStatus(models.TextChoices):
    PENDING = "pending", "Pending"
    SENT = "sent", "Sent"
    FAILED = "failed", "Failed"


class Failure(models.TextChoices):
    """Reasons why an attempt failed. Of a receiver's response only the status is stored."""

    REFUSED_ADDRESS = "refused_address", "The portal is not allowed to reach this address."
    NO_ANSWER = "no_answer", "No answer, or none in time."
    REDIRECTED = "redirected", "Redirected. Redirects are not followed: enter the final address."
    REJECTED = "rejected", "The receiver rejected it."
    BUSY = "busy", "The receiver asked to come back later."
    BROKEN = "broken", "The receiver failed."
    GONE = "gone", "The receiver is permanently gone. The channel was switched off."
    MAIL_REJECTED = "mail_rejected", "The mail server rejected the message or its addresses."
    MAIL_DOWN = "mail_down", "The mail server could not be used."
    UNREADABLE = (
        "unreadable",
        "SECRET_KEY was changed, so target or secret cannot be read. Enter the target again, or create a new secret.",
    )
    SWITCHED_OFF = "switched_off", "The channel was switched off before the message was sent."
    QUEUE_FULL = "queue_full", "Too many messages were waiting for this channel."
    WORKER_DIED = "worker_died", "The portal stopped while sending. It is not known whether the message arrived."
    PORTAL_FAILED = "portal_failed", "The portal failed to send it. See its log."


class ChannelQuerySet(TenantQuerySet["NotificationChannel"]):
    def for_list(self, organization: Organization) -> Self:
        """Return the organization's channels by name, each with status and time of its newest delivery. One query."""
        newest = NotificationDelivery.objects.filter(channel=models.OuterRef("pk")).newest_first()
        return (
            self.filter(organization=organization)
            .annotate(
                newest_status=models.Subquery(newest.values("status")[:1]),
                newest_at=models.Subquery(newest.values("created_at")[:1]),
            )
            .order_by(Lower("name"), "pk")
        )


class NotificationChannel(models.Model):
    """A destination of notifications. Target and signing secrets are encrypted (see portal/sealing.py)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=10, choices=ChannelKind.choices)
    name = models.CharField(max_length=80)
    sealed_target = models.TextField(help_text="A URL, or e-mail addresses separated by commas.")
    sealed_secret = models.TextField(blank=True, help_text="Signing secret of a webhook, `whsec_..`.")
    sealed_old_secret = models.TextField(blank=True, help_text="Previous secret. Signs too until old_secret_until.")
    old_secret_until = models.DateTimeField(null=True)
    events = models.JSONField(default=list, help_text="Values of NotificationKind.")
    quiet_from = models.TimeField(null=True)  # null: no quiet hours
    quiet_until = models.TimeField(null=True)
    quiet_zone = models.CharField(max_length=64, default="UTC", db_default="UTC")
    is_active = models.BooleanField(default=True)
    off_reason = models.TextField(blank=True, help_text="Why the portal itself switched it off.")
    tested_at = models.DateTimeField(null=True, help_text="Time of the last test.")
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    objects = ChannelQuerySet.as_manager()

    class Meta:
        ordering = ["organization", "name", "id"]
        constraints = [
            models.UniqueConstraint("organization", Lower("name"), name="channel_name_once"),
            models.CheckConstraint(condition=models.Q(kind__in=ChannelKind.values), name="channel_kind_known"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.kind})"

    @property
    def target(self) -> str | None:
        """The decrypted target; None if it cannot be read. Not for display: use `masked_target` or `admin_target`."""
        return unseal(self.sealed_target)

    @target.setter
    def target(self, value: str) -> None:
        self.sealed_target = seal(value)

    @property
    def can_sign(self) -> bool:
        """Whether the signing secret can be read. True for other kinds than webhooks, which do not sign."""
        return self.kind != ChannelKind.WEBHOOK or unseal(self.sealed_secret) is not None

    @property
    def addresses(self) -> list[str]:
        """The addresses of an e-mail channel."""
        return (self.target or "").split(",")

    @property
    def masked_target(self) -> str:
        """The target as every member may see it: only the host of a URL, because its path may be a secret."""
        target = self.target
        if target is None:
            return UNREADABLE
        if self.kind == ChannelKind.EMAIL:
            return ", ".join(self.addresses)
        address = urlsplit(target)
        return f"{address.scheme}://{address.netloc}/…"

    @property
    def admin_target(self) -> str:
        """The target as an admin may see it: a webhook's full URL. A Slack URL is a secret and stays masked."""
        return self.target or UNREADABLE if self.kind == ChannelKind.WEBHOOK else self.masked_target

    @property
    def event_labels(self) -> list[str]:
        return [kind.label for kind in SUBSCRIBABLE if kind in self.events]


class DeliveryQuerySet(TenantQuerySet["NotificationDelivery"]):
    def newest_first(self) -> Self:
        return self.order_by("-created_at", "-pk")

    def pending(self) -> Self:
        return self.filter(status=DeliveryStatus.PENDING)

    def ready(self) -> Self:
        """Return what may be claimed now: it is due, none of its channel is in flight, and few of its organization are.

        Messages of a suspended organization keep waiting.
        """
        in_flight = NotificationDelivery.objects.pending().filter(lease_until__gt=Now())
        crowded = (
            in_flight.values("organization")
            .annotate(count=models.Count("pk"))
            .filter(count__gte=IN_FLIGHT_PER_ORGANIZATION)
        )
        return (
            self.pending()
            .filter(due(), organization__is_active=True)
            .exclude(channel__in=in_flight.values("channel"))
            .exclude(organization__in=crowded.values("organization"))
        )


class NotificationDelivery(Leased):
    """One message to one channel: an outbox row that becomes a log entry. Written under a lease."""

    # The webhook-id: the same for all attempts.
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    channel = models.ForeignKey(NotificationChannel, on_delete=models.CASCADE, related_name="deliveries")
    kind = models.CharField(max_length=40, choices=NotificationKind.choices)
    subject = models.CharField(max_length=120, help_text="Id of the object that it is about.")
    title = models.CharField(max_length=200)
    text = models.TextField()
    path = models.CharField(max_length=300, help_text="Path of the page about it, under PORTAL_URL.")
    data = models.JSONField(default=dict, help_text="`data` of a webhook's body, at the time of the event.")
    status = models.CharField(max_length=10, choices=DeliveryStatus.choices, default=DeliveryStatus.PENDING)
    tries = models.SmallIntegerField(default=0, help_text="Attempts since it was queued or last sent again.")
    failure = models.CharField(max_length=20, choices=Failure.choices, null=True)  # null: none
    http_status = models.SmallIntegerField(null=True)
    attempts = models.JSONField(default=list, help_text="Oldest first: at, seconds, http_status, failure, detail.")
    created_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["organization", "channel", "-created_at", "-id"], name="delivery_newest_first"),
            models.Index(fields=["next_check_at"], condition=models.Q(status="pending"), name="delivery_due"),
            models.Index(fields=["channel"], condition=models.Q(status="pending"), name="delivery_pending"),
            models.Index(fields=["ended_at"], name="delivery_ended"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject} to {self.channel_id}"

    @classmethod
    def unfinished(cls) -> "models.QuerySet[Any]":
        return cls.objects.pending()

    @property
    def message_id(self) -> str:
        return f"msg_{self.id.hex}"

    def happens_within(self, seconds: float, *, now: datetime) -> bool:
        """Return whether it is being sent or due within `seconds`."""
        if self.status != DeliveryStatus.PENDING or self.next_check_at is None:
            return False
        return self.next_check_at < now + timedelta(seconds=seconds)

    @property
    def is_held(self) -> bool:
        """Whether it waits for the end of the channel's quiet hours without having been tried."""
        is_new = self.status == DeliveryStatus.PENDING and not self.attempts
        return is_new and self.next_check_at is not None and self.next_check_at > timezone.now()

    @property
    def is_retried(self) -> bool:
        """Whether the last attempt failed and another one follows."""
        return self.status == DeliveryStatus.PENDING and self.failure is not None

    @property
    def newest_attempts(self) -> list["Attempt"]:
        return [Attempt(**tried) for tried in reversed(self.attempts)]

    @property
    def result(self) -> str:
        """The result so far, as a sentence; empty before the first attempt."""
        if self.attempts and self.failure == self.attempts[-1]["failure"]:
            return self.newest_attempts[0].result
        return Failure(self.failure).label if self.failure else ""


@dataclass(frozen=True)
class Attempt:
    """One attempt: an entry of `NotificationDelivery.attempts`. `at` is ISO 8601; `detail` adds to `failure`."""

    at: str
    seconds: float
    http_status: int | None
    failure: str | None
    detail: str

    @property
    def moment(self) -> datetime:
        return datetime.fromisoformat(self.at)

    @property
    def result(self) -> str:
        code = f"HTTP {self.http_status}." if self.http_status else ""
        detail = self.detail or (Failure(self.failure).label if self.failure else "Delivered." if not code else "")
        return f"{code} {detail}".strip()
