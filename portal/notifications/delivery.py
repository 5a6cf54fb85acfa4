"""Sending what waits in the outbox: claim it, send it once, write what came of it.

Senders are threads of the scheduler process: a receiver that hangs costs one of them its time, never a worker nor the
scheduler, which carry rollouts. Several schedulers may run at once.

Never lost: a row that has not ended is due again and again, whoever dies. It may come twice: a message that was sent by a
process that died before it wrote so is sent again, with the same `webhook-id` (of an e-mail: Message-ID), by which the
receiver can tell. No network inside a transaction; every write carries the lease's epoch. The order of a channel's
messages is not kept: one that is retried is overtaken.

What a receiver answers decides:

    2xx                     sent
    408, 425, 429, 5xx      retried, not before its Retry-After
    410                     failed, and the channel is switched off: the receiver wants nothing more
    other 4xx, 3xx          failed at once: the same message would be rejected again. A person looks, and sends it again
    no answer               retried
    address not allowed     failed at once

Retries come after 10 s, 1 min, 5 min, 30 min, 2 h and 6 h. A test is tried once: whoever pressed the button waits for it.
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
from django.db.models.functions import Now

from portal import outbound
from portal.audit import record
from portal.leases import Claim, LeaseLost, free, take
from portal.models import AuditKind
from portal.models.notifications import (
    ChannelKind,
    DeliveryStatus,
    Failure,
    NotificationChannel,
    NotificationDelivery,
    NotificationKind,
)
from portal.notifications.messages import email_of, slack_body, webhook_body, webhook_headers
from portal.sealing import unseal

logger = logging.getLogger(__name__)

BACKOFF_SECONDS = (10, 60, 5 * 60, 30 * 60, 2 * 60 * 60, 6 * 60 * 60)
SEND_SECONDS = 10.0
MOST_RETRY_AFTER = 24 * 60 * 60
# Longer than any send: an e-mail has up to EMAIL_TIMEOUT for each of the steps that a mail server is led through.
SEND_LEASE = timedelta(seconds=90)
ATTEMPTS_KEPT = 20
RETRIED = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
GONE_REASON = "The receiver answered 410 Gone: it wants no more messages."

# Messages that one scheduler process sends at the same moment. One organization has IN_FLIGHT_PER_ORGANIZATION of them.
SENDERS = 8
KEPT_DAYS = 30
ROWS_FORGOTTEN_AT_ONCE = 5000

senders = ThreadPoolExecutor(SENDERS, thread_name_prefix="sender")
idle = BoundedSemaphore(SENDERS)


@dataclass(frozen=True)
class Result:
    """What came of one try. `failure` None: it was delivered. `detail` is a sentence of ours, never the receiver's."""

    failure: Failure | None = None
    http_status: int | None = None
    detail: str = ""
    is_final: bool = False
    retry_after: float = 0


def sweep() -> None:
    """Hand what may be sent now to idle senders, what has been due longest first. Waits for none of them."""
    while idle.acquire(blocking=False):
        with ExitStack() as unless_handed_over:
            unless_handed_over.callback(idle.release)
            claim = claim_next()
            if claim is None:
                return
            senders.submit(send_aside, claim)
            unless_handed_over.pop_all()


def claim_next() -> Claim[NotificationDelivery] | None:
    """One at a time, so that each sees what is in flight already. (Two schedulers at the same moment may not.)"""
    ready = NotificationDelivery.objects.ready().order_by("next_check_at", "pk")
    for claim in take(ready.select_related("channel__organization")):
        return claim
    return None


def send_aside(claim: Claim[NotificationDelivery]) -> None:
    """On a sender's thread: whatever goes wrong is logged, and the message is due again when its lease has run out."""
    try:
        send(claim)
    except Exception:
        logger.exception("notification %s: nothing written", claim.row.pk)
    finally:
        connection.close()
        idle.release()


def send(claim: Claim[NotificationDelivery]) -> None:
    """One try of one message. Takes SEND_SECONDS at most, an e-mail longer."""
    try:
        if may_be_sent(claim):
            began = time.monotonic()
            conclude(claim, attempt(claim), seconds=time.monotonic() - began)
    except LeaseLost:
        logger.warning("notification %s: lease lost, nothing written", claim.row.pk)


def may_be_sent(claim: Claim[NotificationDelivery]) -> bool:
    """Count the try, before it is made: a message that kills its sender must not do so for ever. Or end it."""
    delivery = claim.row
    why_not = None
    if delivery.tries >= most_tries(delivery):
        why_not = Failure.WORKER_DIED
    elif not delivery.channel.is_active and delivery.kind != NotificationKind.TEST:
        why_not = Failure.SWITCHED_OFF
    elif delivery.channel.target is None or not delivery.channel.can_sign:
        why_not = Failure.UNREADABLE
    if why_not:
        end(claim, DeliveryStatus.FAILED, failure=why_not)
        return False
    claim.write(tries=delivery.tries + 1, lease_until=Now() + SEND_LEASE)
    return True


def most_tries(delivery: NotificationDelivery) -> int:
    return 1 if delivery.kind == NotificationKind.TEST else 1 + len(BACKOFF_SECONDS)


# --- one try -------------------------------------------------------------------------------------------------------


def attempt(claim: Claim[NotificationDelivery]) -> Result:
    delivery = claim.row
    try:
        if delivery.channel.kind == ChannelKind.EMAIL:
            return send_email(delivery)
        return post(delivery, now=claim.now)
    except Exception:
        # A message that nobody foresaw must neither stop the others nor be tried for ever.
        logger.exception("notification %s failed", delivery.pk)
        return Result(Failure.PORTAL_FAILED)


def post(delivery: NotificationDelivery, *, now: datetime) -> Result:
    """One POST to a webhook or Slack. Nothing but the status and Retry-After of the answer is read."""
    channel = delivery.channel
    if channel.kind == ChannelKind.SLACK:
        body, headers = slack_body(delivery), {"content-type": "application/json"}
    else:
        body = webhook_body(delivery)
        headers = webhook_headers(delivery, body, keys=keys_of(channel, now=now), now=now)
    try:
        answer = outbound.send(
            "POST",
            str(channel.target),
            networks=settings.WEBHOOK_NETWORKS,
            headers=headers,
            body=body,
            seconds=SEND_SECONDS,
            most_bytes=None,
        )
    except outbound.OutboundRefused as error:
        return Result(Failure.REFUSED_ADDRESS, detail=str(error), is_final=True)
    except outbound.OutboundFailed as error:
        return Result(Failure.NO_ANSWER, detail=str(error))
    return judge(answer.status, answer.headers.get("retry-after", ""), now=now)


def keys_of(channel: NotificationChannel, *, now: datetime) -> list[str]:
    """The signing secret, and the one before it while receivers change over."""
    sealed = [channel.sealed_secret]
    if channel.old_secret_until and channel.old_secret_until > now:
        sealed.append(channel.sealed_old_secret)
    return [key for key in map(unseal, sealed) if key]


def judge(status: int, retry_after: str, *, now: datetime) -> Result:
    """The table above."""
    if 200 <= status < 300:
        return Result(http_status=status)
    if status in RETRIED or status >= 500:
        failure = Failure.BROKEN if status >= 500 else Failure.BUSY
        return Result(failure, status, retry_after=seconds_of(retry_after, now=now))
    if status == HTTPStatus.GONE:
        return Result(Failure.GONE, status, is_final=True)
    return Result(Failure.REDIRECTED if 300 <= status < 400 else Failure.REJECTED, status, is_final=True)


def seconds_of(retry_after: str, *, now: datetime) -> float:
    """Retry-After in seconds, from a number or a date; 0 for what is neither, a day at most.

    >>> seconds_of("120", now=datetime(2026, 1, 1, tzinfo=UTC))
    120.0
    >>> seconds_of("Thu, 01 Jan 2026 00:01:00 GMT", now=datetime(2026, 1, 1, tzinfo=UTC))
    60.0
    """
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), MOST_RETRY_AFTER))
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # OverflowError: a zone of many digits
        return 0
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((aware - now).total_seconds(), 0), MOST_RETRY_AFTER)


def send_email(delivery: NotificationDelivery) -> Result:
    """By EMAIL_URL. One message to all addresses of the channel; if the mail server takes some of them, it was sent."""
    try:
        email_of(delivery).send()
    except smtplib.SMTPRecipientsRefused as error:
        is_final = all(code >= 500 for code, _ in error.recipients.values())
        return Result(Failure.MAIL_REJECTED, is_final=is_final)
    except smtplib.SMTPDataError as error:
        return Result(Failure.MAIL_REJECTED, is_final=error.smtp_code >= 500)
    except (smtplib.SMTPException, OSError) as error:
        # What the mail server says may name the portal's account: it goes to the log.
        logger.warning("notification %s: %s", delivery.pk, error)
        return Result(Failure.MAIL_DOWN)
    return Result()


# --- what came of it -----------------------------------------------------------------------------------------------


def conclude(claim: Claim[NotificationDelivery], result: Result, *, seconds: float) -> None:
    """Write the try; then sent, due again, or failed."""
    delivery = claim.row
    logger.info("notification %s try %s: %s", delivery.pk, delivery.tries, result.failure or "sent")
    tried = {
        "at": claim.now.isoformat(),
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
        end(claim, DeliveryStatus.SENT, **seen)
    elif result.failure == Failure.GONE:
        switch_off_gone(claim, **seen)
    elif result.is_final or delivery.tries >= most_tries(delivery):
        end(claim, DeliveryStatus.FAILED, **seen)
    else:
        claim.release(seconds=max(BACKOFF_SECONDS[delivery.tries - 1], result.retry_after), **seen)


def end(claim: Claim[NotificationDelivery], status: DeliveryStatus, **seen: Any) -> None:
    claim.write(**seen, status=status, ended_at=Now(), next_check_at=None, lease_until=None)


def switch_off_gone(claim: Claim[NotificationDelivery], **seen: Any) -> None:
    """410: the channel is switched off, with the reason shown; what else waits for it ends as well.

    Not where its target was corrected meanwhile: the new one did not say so.
    """
    sent_to = claim.row.channel.sealed_target
    with transaction.atomic():
        channel = NotificationChannel.objects.select_for_update().filter(pk=claim.row.channel_id).first()
        end(claim, DeliveryStatus.FAILED, **seen)
        if channel is None or not channel.is_active or channel.sealed_target != sent_to:
            return
        NotificationChannel.objects.filter(pk=channel.pk).update(is_active=False, off_reason=GONE_REASON)
        end_waiting(channel)
        record(
            AuditKind.CHANNEL_CHANGED,
            organization=channel.organization,
            actor=None,
            subject=str(channel.pk),
            data={"name": channel.name, "is_active": False, "reason": GONE_REASON},
        )


def end_waiting(channel: NotificationChannel) -> None:
    """What waits for a channel that is switched off; what is being sent now is left to who sends it."""
    waiting = channel.deliveries.pending().filter(free()).exclude(kind=NotificationKind.TEST)
    waiting.update(
        status=DeliveryStatus.FAILED, failure=Failure.SWITCHED_OFF, ended_at=Now(), next_check_at=None, lease_until=None
    )


# --- the log -------------------------------------------------------------------------------------------------------


def forget_old() -> None:
    """The log of a channel goes back KEPT_DAYS; what is older was read or will not be."""
    old = NotificationDelivery.objects.filter(ended_at__lt=Now() - timedelta(days=KEPT_DAYS)).order_by("ended_at")
    pks = list(old.values_list("pk", flat=True)[:ROWS_FORGOTTEN_AT_ONCE])
    NotificationDelivery.objects.filter(pk__in=pks).delete()
