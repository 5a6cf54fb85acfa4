"""Quiet hours of a channel: what waits, until when, and what is sent nevertheless."""

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from portal.models import AuditKind, User
from portal.models.notifications import NotificationChannel, NotificationDelivery, NotificationKind
from portal.notifications.outbox import MAX_PENDING
from portal.notifications.quiet import QuietHours
from tests.conftest import Cast, audited_changes
from tests.notifications.conftest import deliver, deliver_now, deliveries, make_channel, send_notification, statuses
from tests.outside import Outside

SignIn = Callable[[User], Client]

HELD = {"kind": NotificationKind.UPGRADE_STARTED, "data": {"status": "PENDING"}}


def around_now() -> dict[str, Any]:
    """Return quiet hours that began an hour ago and end in an hour."""
    now = timezone.now()
    begin, end = now - timedelta(hours=1), now + timedelta(hours=1)
    return {"quiet_from": begin.time(), "quiet_until": end.time().replace(second=0, microsecond=0)}


@pytest.fixture
def channel(cast: Cast, receiver: Outside) -> NotificationChannel:
    return make_channel(cast.acme, by=cast.admin, target=f"{receiver.url}/in", **around_now())


def newest(channel: NotificationChannel) -> NotificationDelivery:
    return deliveries(channel)[-1]


@pytest.mark.parametrize(
    ("hours", "now", "end"),
    [
        (("09:00", "17:00", "UTC"), "2026-01-05T08:59", None),
        (("09:00", "17:00", "UTC"), "2026-01-05T09:00", "2026-01-05T17:00"),
        (("22:00", "07:00", "UTC"), "2026-01-05T23:00", "2026-01-06T07:00"),
        (("22:00", "07:00", "UTC"), "2026-01-06T06:59", "2026-01-06T07:00"),
        (("22:00", "07:00", "UTC"), "2026-01-06T07:00", None),
        (("22:00", "07:00", "America/New_York"), "2026-01-06T04:00", "2026-01-06T12:00"),
        (("22:00", "07:00", "Asia/Kolkata"), "2026-01-05T17:00", "2026-01-06T01:30"),
        (("22:00", "07:00", "Europe/Berlin"), "2026-10-24T21:00", "2026-10-25T06:00"),
        (("02:30", "07:00", "Europe/Berlin"), "2026-03-29T01:29", None),
        (("02:30", "07:00", "Europe/Berlin"), "2026-03-29T01:30", "2026-03-29T05:00"),
        (("02:30", "03:15", "Europe/Berlin"), "2026-03-29T01:05", None),
        (("02:30", "03:15", "Europe/Berlin"), "2026-03-30T00:30", "2026-03-30T01:15"),
    ],
    ids=[
        "before",
        "begin",
        "evening",
        "morning",
        "end",
        "west",
        "east",
        "the clocks go back",
        "before the begin in the hour left out",
        "the begin in the hour left out",
        "over before that",
        "the day after",
    ],
)
def test_quiet_hours_follow_the_clock_of_their_zone(hours: tuple[str, str, str], now: str, end: str | None) -> None:
    quiet = QuietHours(time.fromisoformat(hours[0]), time.fromisoformat(hours[1]), hours[2])

    found = quiet.find_end(datetime.fromisoformat(now).replace(tzinfo=UTC))

    assert (found and found.astimezone(UTC)) == (end and datetime.fromisoformat(end).replace(tzinfo=UTC))


def test_a_message_waits_for_the_end(channel: NotificationChannel, receiver: Outside, cast: Cast) -> None:
    send_notification(cast.acme, **HELD)

    assert deliver(newest(channel))
    held = newest(channel)
    assert (held.status, held.tries, held.is_held, receiver.requests) == ("pending", 0, True, [])
    assert held.next_check_at is not None
    assert abs(held.next_check_at - datetime.now(tz=UTC) - timedelta(hours=1)) < timedelta(minutes=2)
    NotificationChannel.objects.update(quiet_from=None, quiet_until=None)
    assert deliver_now(held).status == "sent"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (NotificationKind.UPGRADE_WAITING, "IN_PROGRESS"),
        (NotificationKind.UPGRADE_ENDED, "PARTIAL"),
        (NotificationKind.DEPLOYMENT_FAILED, "failed"),
        (NotificationKind.UPGRADE_ENDED, "SUCCESS"),
        (NotificationKind.DEPLOYMENT_RECOVERED, "ready"),
    ],
)
def test_only_urgent_messages_do_not_wait(
    channel: NotificationChannel, cast: Cast, kind: NotificationKind, status: str
) -> None:
    send_notification(cast.acme, kind, data={"status": status})

    deliver(newest(channel))

    assert newest(channel).status == ("pending" if status in ("SUCCESS", "ready") else "sent")


def test_held_messages_do_not_push_out_urgent_ones(
    channel: NotificationChannel, receiver: Outside, cast: Cast, client_for: SignIn
) -> None:
    success = {"kind": NotificationKind.UPGRADE_ENDED, "data": {"status": "SUCCESS"}}
    for number in range(MAX_PENDING + 1):
        send_notification(cast.acme, **(HELD if number % 2 else success))
    pending = channel.deliveries.pending()
    assert pending.count() == MAX_PENDING

    send_notification(cast.acme, NotificationKind.UPGRADE_WAITING, data={"status": "IN_PROGRESS"})
    send_notification(cast.acme, NotificationKind.UPGRADE_ENDED, data={"status": "FAILED"})
    client_for(cast.admin).post(f"/o/acme/settings/channels/{channel.pk}/test")

    for urgent in deliveries(channel)[-3:]:
        assert deliver_now(urgent).status == "sent"
    assert (pending.count(), len(receiver.requests)) == (MAX_PENDING, 3)


def test_urgent_messages_have_a_limit_of_their_own(channel: NotificationChannel, cast: Cast) -> None:
    for _ in range(MAX_PENDING + 1):
        send_notification(cast.acme, NotificationKind.UPGRADE_WAITING, data={"status": "IN_PROGRESS"})

    assert (channel.deliveries.pending().count(), newest(channel).failure) == (MAX_PENDING, "queue_full")
    send_notification(cast.acme, **HELD)
    assert newest(channel).status == "pending"


def test_a_retry_waits_but_a_person_does_not(
    channel: NotificationChannel, receiver: Outside, cast: Cast, client_for: SignIn
) -> None:
    NotificationChannel.objects.update(quiet_from=None)
    receiver.answers["/in"] = statuses(503, 400, 204)
    send_notification(cast.acme, **HELD)
    assert deliver_now(newest(channel)).failure == "broken"
    NotificationChannel.objects.update(**around_now())
    waiting = deliver_now(newest(channel))
    assert (waiting.tries, len(receiver.requests)) == (1, 1)
    NotificationChannel.objects.update(quiet_from=None)
    failed = deliver_now(waiting)
    NotificationChannel.objects.update(**around_now())

    client_for(cast.admin).post(f"/o/acme/settings/channels/{channel.pk}/deliveries/{failed.pk}/again")

    assert deliver_now(failed).status == "sent"


def test_an_admin_sets_and_clears_quiet_hours(cast: Cast, client_for: SignIn) -> None:
    channel = make_channel(cast.acme, by=cast.admin)
    client, path = client_for(cast.admin), f"/o/acme/settings/channels/{channel.pk}/"
    body = {"idempotency_key": "1", "name": channel.name, "target": channel.target, "events": channel.events}
    hours = {"quiet_from": "22:00", "quiet_until": "07:00", "quiet_zone": "Europe/Berlin"}

    refused = client.post(f"{path}edit", body | {"quiet_from": "22:00", "quiet_zone": "UTC"})
    same = client.post(f"{path}edit", body | hours | {"quiet_until": "22:00"})
    saved = client.post(f"{path}edit", body | hours, follow=True)
    form = client.get(f"{path}edit").content.decode()

    assert (refused.status_code, same.status_code, saved.status_code) == (422, 422, 200)
    assert "Enter both times, or none." in refused.content.decode()
    assert "22:00 to 07:00, Europe/Berlin" in saved.content.decode()
    assert '<option value="Europe/Berlin" selected>' in form
    assert 'value="22:00"' in form
    change = audited_changes().filter(kind=AuditKind.CHANNEL_CHANGED).latest("id")
    assert change.data["changes"] == {"quiet_hours": {"before": "none", "after": "22:00 to 07:00, Europe/Berlin"}}
    send_notification(cast.acme, **HELD)
    NotificationDelivery.objects.update(next_check_at=timezone.now() + timedelta(hours=5))
    assert "Waits for the end of the quiet hours" in client.get(path).content.decode()

    client.post(f"{path}edit", body | {"quiet_from": "", "quiet_until": "", "quiet_zone": "UTC"})

    channel.refresh_from_db()
    assert (channel.quiet_from, newest(channel).is_held) == (None, False)
