"""Delivery of messages to a real HTTP server: requests, handling of responses, and no lost message."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now

from portal.models import AuditEvent, AuditKind, Organization
from portal.models.notifications import (
    IN_FLIGHT_PER_ORGANIZATION,
    Failure,
    NotificationChannel,
    NotificationDelivery,
    NotificationKind,
)
from portal.notifications.delivery import (
    BACKOFF_SECONDS,
    NEXT_DELIVERY,
    SEND_SECONDS,
    SENDERS,
    delete_old_deliveries,
    send,
    sweep,
)
from portal.sealing import seal
from tests.conftest import Cast
from tests.notifications.conftest import (
    SECRET,
    deliver,
    deliver_now,
    deliveries,
    get_body,
    get_head,
    is_signed,
    make_channel,
    send_notification,
    statuses,
    sweep_and_wait,
    wait_for_senders,
)
from tests.outside import Outside, as_json, raw
from tests.processes import wait_for


@pytest.fixture
def channel(cast: Cast, receiver: Outside) -> NotificationChannel:
    return make_channel(cast.acme, by=cast.admin, target=f"{receiver.url}/in")


@pytest.fixture
def message(channel: NotificationChannel) -> NotificationDelivery:
    send_notification(channel.organization)
    return deliveries(channel)[0]


@pytest.fixture
def hanging(receiver: Outside) -> Iterator[threading.Event]:
    """Return an event; requests to /hangs are answered when it is set."""
    ends = threading.Event()

    def talk(connection: socket.socket, request: str) -> None:
        ends.wait(SEND_SECONDS)
        as_json({}, status=204)(connection, request)

    receiver.answers["/hangs"] = talk
    yield ends
    ends.set()


def get_wait_seconds(message: NotificationDelivery) -> float:
    """Return the seconds until it is due again, on the database's clock."""
    now = NotificationDelivery.objects.annotate(now=Now()).values_list("now", flat=True)[0]
    assert message.next_check_at is not None
    return (message.next_check_at - now).total_seconds()


# --- requests ------------------------------------------------------------------------------------------------------


def test_a_webhook_is_signed_per_the_standard(message: NotificationDelivery, receiver: Outside) -> None:
    deliver_now(message)

    (request,) = receiver.requests
    assert request.startswith("POST /in HTTP/1.1\r\n")
    assert is_signed(request, SECRET)
    assert not is_signed(request, SECRET.replace("MfKQ", "AAAA"))
    assert get_head(request)["webhook-id"] == message.message_id
    assert get_head(request)["content-type"] == "application/json"
    body = json.loads(get_body(request))
    assert (body["type"], body["data"]) == ("upgrade.ended", message.data)
    assert datetime.fromisoformat(body["timestamp"]) - message.created_at < timedelta(milliseconds=1)
    assert (message.status, message.http_status, message.failure) == ("sent", 204, None)
    assert (message.next_check_at, message.lease_until) == (None, None)
    assert message.ended_at is not None


def test_the_previous_secret_signs_until_it_expires(
    channel: NotificationChannel, message: NotificationDelivery, receiver: Outside
) -> None:
    old = SECRET.replace("MfKQ", "AAAA")
    channel.sealed_old_secret = seal(old)
    channel.old_secret_until = message.created_at + timedelta(hours=1)
    channel.save()
    send_notification(channel.organization)

    deliver_now(message)
    channel.old_secret_until = message.created_at - timedelta(hours=1)
    channel.save()
    deliver_now(deliveries(channel)[1])

    before, after = receiver.requests
    assert is_signed(before, SECRET)
    assert is_signed(before, old)
    assert is_signed(after, SECRET)
    assert not is_signed(after, old)


def test_slack_text_contains_no_link_or_mention(cast: Cast, receiver: Outside, settings: Any) -> None:
    settings.PORTAL_URL = "https://portal.example"
    channel = make_channel(cast.acme, by=cast.admin, kind="slack", target=f"{receiver.url}/in")
    send_notification(
        cast.acme, title="Ended <!channel>", text="Reason: <https://evil.example|R&D>", path="/o/acme/?a=1&b=2"
    )

    deliver_now(deliveries(channel)[0])

    (request,) = receiver.requests
    said = "*Ended &lt;!channel&gt;*\nReason: &lt;https://evil.example|R&amp;D&gt;"
    url, label = "https://portal.example/o/acme/?a=1&b=2", "Open in the portal"
    assert json.loads(get_body(request)) == {
        "text": f"{said}\n<https://portal.example/o/acme/?a=1&amp;b=2|{label}>",
        "blocks": [
            {"type": "section", "text": {"type": "mrkdwn", "text": said}},
            {
                "type": "actions",
                "elements": [{"type": "button", "text": {"type": "plain_text", "text": label}, "url": url}],
            },
        ],
    }
    assert not [name for name in get_head(request) if name.startswith("webhook-")]


def test_slack_says_on_the_button_what_to_do(cast: Cast, receiver: Outside, settings: Any) -> None:
    settings.PORTAL_URL = "https://portal.example"
    channel = make_channel(cast.acme, by=cast.admin, kind="slack", target=f"{receiver.url}/in")
    send_notification(cast.acme, NotificationKind.UPGRADE_WAITING, text="&" * 5000, path="/o/acme/upgrades/u/decide")

    deliver_now(deliveries(channel)[0])

    section, actions = json.loads(get_body(receiver.requests[0]))["blocks"]
    (button,) = actions["elements"]
    assert (button["text"]["text"], button["style"]) == ("Decide", "primary")
    assert button["url"] == "https://portal.example/o/acme/upgrades/u/decide"
    assert 2950 < len(section["text"]["text"]) <= 3000
    assert section["text"]["text"].endswith("&amp;")


# --- responses -----------------------------------------------------------------------------------------------------


def test_retries_back_off_keep_their_id_and_end(message: NotificationDelivery, receiver: Outside) -> None:
    receiver.answers["/in"] = statuses(503)

    for seconds in BACKOFF_SECONDS:
        deliver_now(message)
        assert (message.status, message.failure) == ("pending", Failure.BROKEN)
        assert get_wait_seconds(message) == pytest.approx(seconds, abs=5)
    deliver_now(message)

    assert (message.status, message.failure, message.http_status) == ("failed", Failure.BROKEN, 503)
    assert message.next_check_at is None
    assert len(message.attempts) == len(receiver.requests) == 1 + len(BACKOFF_SECONDS)
    assert {get_head(request)["webhook-id"] for request in receiver.requests} == {message.message_id}
    assert len({get_body(request) for request in receiver.requests}) == 1
    assert not deliver(message)


def test_a_recovered_receiver_gets_the_message(message: NotificationDelivery, receiver: Outside) -> None:
    receiver.answers["/in"] = statuses(500, 429, 200)

    for _ in range(3):
        deliver_now(message)

    assert message.status == "sent"
    assert [tried["http_status"] for tried in message.attempts] == [500, 429, 200]
    assert [tried["failure"] for tried in message.attempts] == ["broken", "busy", None]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
def test_a_rejected_message_is_not_retried(message: NotificationDelivery, receiver: Outside, status: int) -> None:
    receiver.answers["/in"] = statuses(status)

    deliver_now(message)

    assert (message.status, message.failure, message.http_status) == ("failed", Failure.REJECTED, status)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 599])
def test_a_receiver_that_may_recover_is_retried(message: NotificationDelivery, receiver: Outside, status: int) -> None:
    receiver.answers["/in"] = statuses(status)

    deliver_now(message)

    assert (message.status, message.http_status) == ("pending", status)


def after(value: str) -> Any:
    return raw(f"HTTP/1.1 503 Later\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n".encode())


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), ("3", 10), ("9" * 40, 86400), ("soon", 10), ("-5", 10), ("", 10), ("\u0662".encode().hex(), 10)],
)
def test_retry_after_is_honoured_in_seconds(
    message: NotificationDelivery, receiver: Outside, value: str, seconds: float
) -> None:
    """Never sooner than our own back-off, never later than after a day."""
    receiver.answers["/in"] = after(value)

    deliver_now(message)

    assert get_wait_seconds(message) == pytest.approx(seconds, abs=5)


def test_an_impossible_retry_after_is_ignored(message: NotificationDelivery, receiver: Outside) -> None:
    receiver.answers["/in"] = after("Thu, 01 Jan 2026 00:01:00 +99999999999999")

    deliver_now(message)

    assert (message.failure, get_wait_seconds(message)) == (Failure.BROKEN, pytest.approx(10, abs=5))


def test_retry_after_is_honoured_as_a_date(message: NotificationDelivery, receiver: Outside) -> None:
    receiver.answers["/in"] = after(format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True))

    deliver_now(message)

    assert get_wait_seconds(message) == pytest.approx(300, abs=5)


def test_a_receiver_that_is_gone_switches_its_channel_off(
    cast: Cast, channel: NotificationChannel, message: NotificationDelivery, receiver: Outside
) -> None:
    send_notification(cast.acme)
    waiting = deliveries(channel)[1]
    receiver.answers["/in"] = statuses(410)

    deliver_now(message)

    channel.refresh_from_db()
    waiting.refresh_from_db()
    assert (message.status, message.failure) == ("failed", Failure.GONE)
    assert (waiting.status, waiting.failure) == ("failed", Failure.SWITCHED_OFF)
    assert (channel.is_active, channel.off_reason) == (
        False,
        "The receiver answered 410 Gone, which means that it wants no more messages.",
    )
    told = AuditEvent.objects.get(kind=AuditKind.CHANNEL_CHANGED)
    assert (told.organization, told.actor_email, told.subject) == (cast.acme, "system", str(channel.pk))


def test_a_target_changed_meanwhile_is_not_switched_off(
    channel: NotificationChannel, message: NotificationDelivery, receiver: Outside
) -> None:
    receiver.answers["/in"] = statuses(410)
    (lease,) = NEXT_DELIVERY.take()
    channel.target = f"{receiver.url}/corrected"
    channel.save()

    send(lease)

    channel.refresh_from_db()
    message.refresh_from_db()
    assert (message.status, message.failure) == ("failed", Failure.GONE)
    assert (channel.is_active, channel.off_reason) == (True, "")


def test_a_redirect_is_not_followed(message: NotificationDelivery, receiver: Outside) -> None:
    """Above all not to an address that only the portal can reach."""
    location = f"Location: {receiver.url}/internal"
    receiver.answers["/in"] = raw(f"HTTP/1.1 307 Temporary\r\n{location}\r\nContent-Length: 0\r\n\r\n".encode())

    deliver_now(message)

    assert len(receiver.requests) == 1
    assert (message.status, message.failure, message.http_status) == ("failed", Failure.REDIRECTED, 307)


def test_a_hanging_receiver_is_abandoned_in_time(message: NotificationDelivery, receiver: Outside) -> None:
    receiver.answers["/in"] = as_json({}, seconds=SEND_SECONDS + 30)
    began = time.monotonic()

    deliver_now(message)

    assert time.monotonic() - began < SEND_SECONDS + 10  # far less than the receiver takes, also on a busy machine
    assert (message.status, message.failure, message.http_status) == ("pending", Failure.NO_ANSWER, None)


def test_a_huge_answer_is_not_read(message: NotificationDelivery, receiver: Outside) -> None:
    """Its status says that the message was accepted, so sending it again would duplicate it."""

    def talk(connection: socket.socket, request: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    receiver.answers["/in"] = talk
    began = time.monotonic()

    deliver_now(message)

    assert message.status == "sent"
    assert time.monotonic() - began < 5


def test_no_part_of_a_response_is_stored(message: NotificationDelivery, receiver: Outside) -> None:
    secret = "secret of the receiver"
    head = f"HTTP/1.1 400 {secret}\r\nX-Secret: {secret}\r\n\r\n{secret}"
    for answer in (head, f"{secret} is no HTTP\r\n\r\n"):
        receiver.answers["/in"] = raw(answer.encode())
        NotificationDelivery.objects.update(status="pending", next_check_at=Now())
        deliver_now(message)

    assert len(message.attempts) == 2
    assert secret not in str(NotificationDelivery.objects.values().get())


def test_a_forbidden_address_is_never_connected(
    message: NotificationDelivery, receiver: Outside, settings: Any
) -> None:
    settings.WEBHOOK_NETWORKS = []

    deliver_now(message)

    assert receiver.connections == 0
    assert (message.status, message.failure) == ("failed", Failure.REFUSED_ADDRESS)
    assert "non-public" in message.attempts[0]["detail"]


# --- claims ----------------------------------------------------------------------------------------------------------


def test_it_is_sent_once(message: NotificationDelivery, receiver: Outside) -> None:
    assert deliver(message)
    assert not deliver(message)

    assert len(receiver.requests) == 1


def test_messages_in_flight_are_limited(
    cast: Cast, channel: NotificationChannel, message: NotificationDelivery
) -> None:
    """A hanging receiver occupies one sender, and an organization with several of them two."""
    others = [make_channel(cast.acme, by=cast.admin, name=name) for name in ("second", "third")]
    make_channel(cast.globex, by=cast.outsider)
    send_notification(cast.acme)
    send_notification(cast.globex)
    ready = NotificationDelivery.objects.ready()
    assert ready.count() == 5

    in_flight = Now() + timedelta(minutes=1)
    NotificationDelivery.objects.filter(pk=message.pk).update(lease_until=in_flight)
    assert {each.channel.name for each in ready.all()} == {"second", "third", "Our webhook"}
    assert {each.organization for each in ready.filter(channel__name="Our webhook")} == {cast.globex}

    NotificationDelivery.objects.filter(channel=others[0]).update(lease_until=in_flight)
    assert {each.organization for each in ready.all()} == {cast.globex}


def test_waiting_messages_of_a_channel_that_is_off_fail(
    channel: NotificationChannel, message: NotificationDelivery, receiver: Outside
) -> None:
    NotificationChannel.objects.update(is_active=False)

    deliver_now(message)

    assert (message.status, message.failure, receiver.connections) == ("failed", Failure.SWITCHED_OFF, 0)


def test_messages_of_a_suspended_organization_keep_waiting(
    cast: Cast, message: NotificationDelivery, receiver: Outside
) -> None:
    Organization.objects.filter(pk=cast.acme.pk).update(is_active=False)
    assert not deliver(message)

    Organization.objects.filter(pk=cast.acme.pk).update(is_active=True)
    assert deliver(message)
    assert len(receiver.requests) == 1


def test_a_test_is_tried_once_even_if_the_channel_is_off(
    channel: NotificationChannel, message: NotificationDelivery, receiver: Outside
) -> None:
    NotificationChannel.objects.update(is_active=False)
    NotificationDelivery.objects.update(kind=NotificationKind.TEST)
    receiver.answers["/in"] = statuses(503)

    deliver_now(message)

    assert (message.status, message.failure, len(receiver.requests)) == ("failed", Failure.BROKEN, 1)


def test_an_unreadable_target_is_reported_and_not_tried(
    message: NotificationDelivery, receiver: Outside, settings: Any
) -> None:
    settings.SECRET_KEY = "another-secret-key-that-is-long-enough-for-a-test"

    deliver_now(message)

    assert (message.status, message.failure, receiver.connections) == ("failed", Failure.UNREADABLE, 0)


def test_a_webhook_that_cannot_be_signed_is_not_sent(
    channel: NotificationChannel, message: NotificationDelivery, receiver: Outside, settings: Any
) -> None:
    """Its target was entered again after SECRET_KEY was changed, but it got no new secret."""
    settings.SECRET_KEY = "another-secret-key-that-is-long-enough-for-a-test"
    channel.target = f"{receiver.url}/in"
    channel.save()

    deliver_now(message)

    assert (message.status, message.failure, receiver.connections) == ("failed", Failure.UNREADABLE, 0)
    assert "create a new secret" in message.result


def test_a_message_that_kills_its_senders_ends(message: NotificationDelivery, receiver: Outside) -> None:
    NotificationDelivery.objects.update(tries=1 + len(BACKOFF_SECONDS))

    deliver_now(message)

    assert (message.status, message.failure, receiver.connections) == ("failed", Failure.WORKER_DIED, 0)


# --- the schedule ----------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_sweep_sends_due_messages_without_a_broker(
    cast: Cast, channel: NotificationChannel, receiver: Outside, broker_down: None
) -> None:
    for _ in range(3):
        send_notification(cast.acme)

    for _ in range(3):
        sweep_and_wait()

    assert [each.status for each in deliveries(channel)] == ["sent"] * 3
    assert len(receiver.requests) == 3


@pytest.mark.django_db(transaction=True)
def test_the_sweep_waits_for_no_receiver(
    cast: Cast, channel: NotificationChannel, receiver: Outside, hanging: threading.Event
) -> None:
    """Dead receivers occupy two senders per organization. Other organizations and the rollout sweeps do not wait."""
    for number in range(4):
        make_channel(cast.acme, by=cast.admin, name=f"Dead {number}", target=f"{receiver.url}/hangs")
    send_notification(cast.acme)
    NotificationDelivery.objects.update(next_check_at=Now() - timedelta(hours=1))
    NotificationDelivery.objects.filter(channel=channel).delete()
    theirs = make_channel(cast.globex, by=cast.outsider, target=f"{receiver.url}/in")
    began = time.monotonic()

    sweep()
    send_notification(cast.globex)
    sweep()

    assert time.monotonic() - began < 1
    in_flight = NotificationDelivery.objects.filter(lease_until__gt=Now(), organization=cast.acme)
    assert in_flight.count() == IN_FLIGHT_PER_ORGANIZATION
    wait_for(lambda: deliveries(theirs)[0].status == "sent", seconds=SEND_SECONDS)
    hanging.set()
    wait_for_senders()


@pytest.mark.django_db(transaction=True)
def test_a_message_is_not_claimed_before_a_sender_is_idle(
    cast: Cast, receiver: Outside, hanging: threading.Event
) -> None:
    """Its lease would expire while it waits in a queue."""
    organizations = [
        Organization.objects.create(slug=f"other-{number}", name=f"Other {number}")
        for number in range(SENDERS // 2 + 1)
    ]
    for organization in organizations:
        for name in ("one", "two"):
            make_channel(organization, by=cast.staff, name=name, target=f"{receiver.url}/hangs")
        send_notification(organization)

    sweep()

    assert NotificationDelivery.objects.filter(lease_until__gt=Now()).count() == SENDERS
    hanging.set()
    wait_for_senders()
    sweep_and_wait()
    assert {each.status for each in NotificationDelivery.objects.all()} == {"sent"}


@pytest.mark.django_db(transaction=True)
def test_the_sweep_sends_the_longest_due_first(cast: Cast, channel: NotificationChannel, receiver: Outside) -> None:
    send_notification(cast.acme)
    send_notification(cast.acme)
    second = deliveries(channel)[1]
    NotificationDelivery.objects.filter(pk=second.pk).update(next_check_at=F("next_check_at") - timedelta(minutes=1))

    sweep_and_wait()

    second.refresh_from_db()
    assert (second.status, deliveries(channel)[0].status) == ("sent", "pending")
    assert len(receiver.requests) == 1


def test_old_messages_are_deleted(message: NotificationDelivery) -> None:
    send_notification(message.organization)
    deliver_now(message)
    NotificationDelivery.objects.filter(pk=message.pk).update(ended_at=Now() - timedelta(days=31))

    delete_old_deliveries()

    assert list(NotificationDelivery.objects.values_list("status", flat=True)) == ["pending"]
