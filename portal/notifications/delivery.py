"""Delivery of outbox messages: claim one, send it once, write the result.

Senders are threads of the scheduler process. A receiver that hangs occupies one sender thread. It never blocks a worker
or the scheduler, which carry out rollouts. Several schedulers may run at the same time.

Delivery is at least once. A row that has not ended becomes due again after a crash. If a process dies after sending and
before writing the result, the message is sent again with the same `webhook-id` (Message-ID of an e-mail), so that the
receiver can detect the duplicate. No network call runs inside a transaction, and every write checks the lease's epoch.
The order of a channel's messages is not kept: later messages overtake one that is retried.

The receiver's response decides:

    2xx                     sent
    408, 425, 429, 5xx      retried, not before its Retry-After
    410                     failed, and the channel is switched off: the receiver wants no more messages
    other 4xx, 3xx          failed immediately: a retry would be rejected too. A person can send it again
    no response             retried
    address not allowed     failed immediately

In a channel's quiet hours only urgent messages are sent; others, and their retries, wait for the end (quiet.py).
Retries come after 10 s, 1 min, 5 min, 30 min, 2 h and 6 h. A test is tried once, because a person waits for its result.
"""

import logging
import smtplib
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from threading import BoundedSemaphore
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from portal import outbound
from portal.audit import record
from portal.leases import Claim, Lease, LeaseLost, free
from portal.models import AuditKind
from portal.models.notifications import (
    ChannelKind,
    DeliveryStatus,
    Failure,
    NotificationChannel,
    NotificationDelivery,
    NotificationKind,
)
from portal.notifications.messages import build_email, slack_body, webhook_body, webhook_headers
from portal.notifications.quiet import get_quiet_hours, is_urgent
from portal.outages import is_database_outage, note_database_outage
from portal.sealing import unseal
from portal.tenancy import all_organizations, organizations

logger = logging.getLogger(__name__)

BACKOFF_SECONDS = (10, 60, 5 * 60, 30 * 60, 2 * 60 * 60, 6 * 60 * 60)
SEND_SECONDS = 10.0
MAX_RETRY_AFTER = 24 * 60 * 60
# Must exceed any send. An e-mail may take EMAIL_TIMEOUT for each step of the SMTP dialogue.
SEND_LEASE_DURATION = timedelta(seconds=90)
ATTEMPTS_KEPT = 20
RETRIED = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
GONE_REASON = "The receiver answered 410 Gone, which means that it wants no more messages."

# The most messages that one scheduler process sends concurrently; see also IN_FLIGHT_PER_ORGANIZATION.
SENDERS = 8
ROWS_PER_DELETE = 5000

senders = ThreadPoolExecutor(SENDERS, thread_name_prefix="sender")
idle = BoundedSemaphore(SENDERS)


@dataclass(frozen=True)
class Result:
    """The result of one attempt. `failure` None means delivered. `detail` is our own text, never the receiver's."""

    failure: Failure | None = None
    http_status: int | None = None
    detail: str = ""
    is_final: bool = False
    retry_after: float = 0


def sweep() -> None:
    """Hand due messages to idle senders, the longest due first. Does not wait for the senders."""
    while idle.acquire(blocking=False):
        with ExitStack() as unless_handed_over:
            unless_handed_over.callback(idle.release)
            lease = claim_next_delivery()
            if lease is None:
                return
            senders.submit(send_on_thread, lease)
            unless_handed_over.pop_all()


def claim_next_delivery() -> Lease[NotificationDelivery] | None:
    """Claim one message. The next claim here sees it in flight; one by a concurrent scheduler may not."""
    with all_organizations("the sweep looks for work everywhere"):
        return next(iter(NEXT_DELIVERY.take()), None)


def find_ready() -> "QuerySet[NotificationDelivery]":
    ready = NotificationDelivery.objects.ready().order_by("next_check_at", "pk")
    return ready.select_related("channel__organization")


NEXT_DELIVERY = Claim(find_ready)


def send_on_thread(lease: Lease[NotificationDelivery]) -> None:
    """Send one message on a sender thread. Log any error; the message is due again when its lease expires."""
    try:
        with organizations(lease.row.organization_id):
            send(lease)
    except Exception as error:
        if is_database_outage(error):
            note_database_outage(error)
        else:
            logger.exception("notification %s: result not written", lease.row.pk)
    finally:
        connection.close()
        idle.release()


def send(lease: Lease[NotificationDelivery]) -> None:
    """Make one attempt to send one message. Takes at most SEND_SECONDS, longer for an e-mail."""
    try:
        if may_be_sent(lease):
            began = time.monotonic()
            record_result(lease, attempt(lease), seconds=time.monotonic() - began)
    except LeaseLost:
        logger.warning("notification %s: lease lost, result not written", lease.row.pk)


def may_be_sent(lease: Lease[NotificationDelivery]) -> bool:
    """Count the attempt before it is made, or end the message if it cannot be sent. Return whether to send it.

    Counting first limits the attempts of a message that crashes its sender.
    """
    delivery = lease.row
    why_not = None
    if delivery.tries >= max_tries(delivery):
        why_not = Failure.WORKER_DIED
    elif not delivery.channel.is_active and delivery.kind != NotificationKind.TEST:
        why_not = Failure.SWITCHED_OFF
    elif delivery.channel.target is None or not delivery.channel.can_sign:
        why_not = Failure.UNREADABLE
    if why_not:
        record_end(lease, DeliveryStatus.FAILED, failure=why_not)
        return False
    held_until = find_held_until(delivery, now=lease.now)
    if held_until:
        lease.release(seconds=(held_until - lease.now).total_seconds())
        return False
    lease.write(tries=delivery.tries + 1, lease_until=Now() + SEND_LEASE_DURATION)
    return True


def find_held_until(delivery: NotificationDelivery, *, now: datetime) -> datetime | None:
    """Return the end of the quiet hours that the message waits for. None: it is sent now.

    A message that a person sends again does not wait.
    """
    quiet, is_again = get_quiet_hours(delivery.channel), delivery.tries == 0 and delivery.attempts
    if quiet is None or is_again or is_urgent(delivery.kind, delivery.data):
        return None
    return quiet.find_end(now)


def max_tries(delivery: NotificationDelivery) -> int:
    return 1 if delivery.kind == NotificationKind.TEST else 1 + len(BACKOFF_SECONDS)


# --- one attempt ---------------------------------------------------------------------------------------------------


def attempt(lease: Lease[NotificationDelivery]) -> Result:
    delivery = lease.row
    try:
        if delivery.channel.kind == ChannelKind.EMAIL:
            return send_email(delivery)
        return post(delivery, now=lease.now)
    except Exception:
        # An unexpected error must not stop other messages or be retried without limit.
        logger.exception("notification %s failed", delivery.pk)
        return Result(Failure.PORTAL_FAILED)


def post(delivery: NotificationDelivery, *, now: datetime) -> Result:
    """Make one POST to a webhook or Slack. Reads only status and Retry-After of the response."""
    channel = delivery.channel
    if channel.kind == ChannelKind.SLACK:
        body, headers = slack_body(delivery), {"content-type": "application/json"}
    else:
        body = webhook_body(delivery)
        headers = webhook_headers(delivery, body, keys=get_signing_keys(channel, now=now), now=now)
    try:
        answer = outbound.send(
            "POST",
            str(channel.target),
            networks=settings.WEBHOOK_NETWORKS,
            headers=headers,
            body=body,
            seconds=SEND_SECONDS,
            max_bytes=None,
        )
    except outbound.OutboundRefused as error:
        return Result(Failure.REFUSED_ADDRESS, detail=str(error), is_final=True)
    except outbound.OutboundFailed as error:
        return Result(Failure.NO_ANSWER, detail=str(error))
    return judge(answer.status, answer.headers.get("retry-after", ""), now=now)


def get_signing_keys(channel: NotificationChannel, *, now: datetime) -> list[str]:
    """Return the signing secret, and the previous one while it is still valid."""
    sealed = [channel.sealed_secret]
    if channel.old_secret_until and channel.old_secret_until > now:
        sealed.append(channel.sealed_old_secret)
    return [key for key in map(unseal, sealed) if key]


def judge(status: int, retry_after: str, *, now: datetime) -> Result:
    """Return the result for a status, by the table in the module docstring."""
    if 200 <= status < 300:
        return Result(http_status=status)
    if status in RETRIED or status >= 500:
        failure = Failure.BROKEN if status >= 500 else Failure.BUSY
        return Result(failure, status, retry_after=parse_retry_after(retry_after, now=now))
    if status == HTTPStatus.GONE:
        return Result(Failure.GONE, status, is_final=True)
    return Result(Failure.REDIRECTED if 300 <= status < 400 else Failure.REJECTED, status, is_final=True)


def parse_retry_after(retry_after: str, *, now: datetime) -> float:
    """Return Retry-After in seconds, from a number or a date. 0 for anything else; at most a day.

    >>> parse_retry_after("120", now=datetime(2026, 1, 1, tzinfo=UTC))
    120.0
    >>> parse_retry_after("Thu, 01 Jan 2026 00:01:00 GMT", now=datetime(2026, 1, 1, tzinfo=UTC))
    60.0
    """
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), MAX_RETRY_AFTER))
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # OverflowError: a time zone with many digits
        return 0
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((aware - now).total_seconds(), 0), MAX_RETRY_AFTER)


def send_email(delivery: NotificationDelivery) -> Result:
    """Send one e-mail to all addresses of the channel (EMAIL_URL). It is sent if the server accepts some of them."""
    try:
        build_email(delivery).send()
    except smtplib.SMTPRecipientsRefused as error:
        is_final = all(code >= 500 for code, _ in error.recipients.values())
        return Result(Failure.MAIL_REJECTED, is_final=is_final)
    except smtplib.SMTPDataError as error:
        return Result(Failure.MAIL_REJECTED, is_final=error.smtp_code >= 500)
    except (smtplib.SMTPException, OSError) as error:
        # The mail server's reply may name the portal's account, so it is only logged.
        logger.warning("notification %s: %s", delivery.pk, error)
        return Result(Failure.MAIL_DOWN)
    return Result()


# --- results -------------------------------------------------------------------------------------------------------


def record_result(lease: Lease[NotificationDelivery], result: Result, *, seconds: float) -> None:
    """Write the attempt, and make the message sent, due again or failed."""
    delivery = lease.row
    logger.info("notification %s try %s: %s", delivery.pk, delivery.tries, result.failure or "sent")
    tried = {
        "at": lease.now.isoformat(),
        "seconds": round(seconds, 2),
        "http_status": result.http_status,
        "failure": result.failure,
        "detail": result.detail,
    }
    seen: dict[str, Any] = {
        "http_status": result.http_status,
        "failure": result.failure,
        "attempts": [*delivery.attempts, tried][-ATTEMPTS_KEPT:],
    }
    if result.failure is None:
        record_end(lease, DeliveryStatus.SENT, **seen)
    elif result.failure == Failure.GONE:
        switch_off_gone(lease, **seen)
    elif result.is_final or delivery.tries >= max_tries(delivery):
        record_end(lease, DeliveryStatus.FAILED, **seen)
    else:
        lease.release(seconds=max(BACKOFF_SECONDS[delivery.tries - 1], result.retry_after), **seen)


def record_end(lease: Lease[NotificationDelivery], status: DeliveryStatus, **seen: Any) -> None:
    lease.write(**seen, status=status, ended_at=Now(), next_check_at=None, lease_until=None)


def switch_off_gone(lease: Lease[NotificationDelivery], **seen: Any) -> None:
    """End the message after a 410, switch its channel off with the reason, and fail its waiting messages.

    Leaves the channel on if its target was changed meanwhile, because the new target did not answer 410.
    """
    sent_to = lease.row.channel.sealed_target
    with transaction.atomic():
        channel = NotificationChannel.objects.select_for_update().filter(pk=lease.row.channel_id).first()
        record_end(lease, DeliveryStatus.FAILED, **seen)
        if channel is None or not channel.is_active or channel.sealed_target != sent_to:
            return
        NotificationChannel.objects.filter(pk=channel.pk).update(is_active=False, off_reason=GONE_REASON)
        end_pending(channel)
        record(
            AuditKind.CHANNEL_CHANGED,
            organization=channel.organization,
            actor=None,
            subject=str(channel.pk),
            data={"name": channel.name, "is_active": False, "reason": GONE_REASON},
        )


def end_pending(channel: NotificationChannel) -> None:
    """Fail the waiting messages of a channel that is switched off. Messages being sent are left to their sender."""
    waiting = channel.deliveries.pending().filter(free()).exclude(kind=NotificationKind.TEST)
    waiting.update(
        status=DeliveryStatus.FAILED, failure=Failure.SWITCHED_OFF, ended_at=Now(), next_check_at=None, lease_until=None
    )


# --- the log -------------------------------------------------------------------------------------------------------


def delete_old_deliveries() -> None:
    """Delete messages that ended more than NOTIFICATION_RETENTION_DAYS ago, at most ROWS_PER_DELETE per call."""
    kept = timedelta(days=settings.NOTIFICATION_RETENTION_DAYS)
    old = NotificationDelivery.objects.filter(ended_at__lt=Now() - kept).order_by("ended_at")
    with all_organizations("the log of every organization is pruned"):
        pks = list(old.values_list("pk", flat=True)[:ROWS_PER_DELETE])
        NotificationDelivery.objects.filter(pk__in=pks).delete()
