"""notify(): one row per subscribed channel, in the caller's transaction."""

from typing import Any

import pytest
from django.db import connection, transaction

from portal.models.notifications import (
    DeliveryStatus,
    Failure,
    NotificationChannel,
    NotificationDelivery,
    NotificationKind,
)
from portal.notifications.outbox import MAX_PENDING, one_line
from tests.conftest import Cast
from tests.notifications.conftest import SECRET, TARGETS, deliveries, make_channel, send_notification


def test_each_channel_that_subscribed_gets_a_row(cast: Cast, settings: Any) -> None:
    settings.PORTAL_URL = "https://portal.example"
    webhook = make_channel(cast.acme, by=cast.admin)
    email = make_channel(cast.acme, by=cast.admin, kind="email")

    send_notification(cast.acme)

    (row,) = deliveries(webhook)
    assert len(deliveries(email)) == 1
    assert (row.status, row.organization, row.kind) == ("pending", cast.acme, "upgrade.ended")
    assert row.next_check_at is not None
    assert row.data == {
        "organization": "acme",
        "title": "Acme Robotics: upgrade ended PARTIAL",
        "upgrade_id": row.subject,
        "status": "PARTIAL",
        "url": f"https://portal.example{row.path}",
    }


def test_without_portal_url_messages_have_no_link(cast: Cast) -> None:
    channel = make_channel(cast.acme, by=cast.admin)

    send_notification(cast.acme)

    assert deliveries(channel)[0].data["url"] is None


def test_unsubscribed_channels_get_nothing(cast: Cast) -> None:
    make_channel(cast.acme, by=cast.admin, name="Off", is_active=False)
    make_channel(cast.acme, by=cast.admin, name="Other", events=["upgrade.started"])
    make_channel(cast.globex, by=cast.outsider)

    send_notification(cast.acme)

    assert not NotificationDelivery.objects.exists()


def test_a_rolled_back_change_sends_nothing(cast: Cast) -> None:
    make_channel(cast.acme, by=cast.admin)

    with transaction.atomic():
        send_notification(cast.acme)
        transaction.set_rollback(True)

    assert not NotificationDelivery.objects.exists()


def test_a_channels_queue_is_bounded(cast: Cast) -> None:
    channel = make_channel(cast.acme, by=cast.admin)
    for _ in range(MAX_PENDING + 1):
        send_notification(cast.acme)

    assert channel.deliveries.pending().count() == MAX_PENDING
    left_out = channel.deliveries.get(status=DeliveryStatus.FAILED)
    assert (left_out.failure, left_out.next_check_at) == (Failure.QUEUE_FULL, None)
    assert left_out.ended_at is not None


@pytest.mark.parametrize("channels", [0, 3])
def test_notify_costs_two_queries_for_any_number_of_channels(
    cast: Cast, django_assert_num_queries: Any, channels: int
) -> None:
    for number in range(channels):
        make_channel(cast.acme, by=cast.admin, name=f"Channel {number}")

    transaction_of_the_caller = 2
    with django_assert_num_queries(transaction_of_the_caller + 1 + min(channels, 1)):
        send_notification(cast.acme)


def test_secrets_are_not_in_the_database(cast: Cast) -> None:
    for kind in TARGETS:
        make_channel(cast.acme, by=cast.admin, kind=kind)
    send_notification(cast.acme)

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT channel::text || delivery::text FROM portal_notificationchannel channel"
            " JOIN portal_notificationdelivery delivery ON channel_id = channel.id"
        )
        dump = " ".join(row[0] for row in cursor.fetchall())
    assert "Our slack" in dump
    for secret in (SECRET.removeprefix("whsec_"), "target-secret", "one@example.com"):
        assert secret not in dump


def test_a_target_sealed_with_another_key_says_so(cast: Cast, settings: Any) -> None:
    channel = make_channel(cast.acme, by=cast.admin)
    settings.SECRET_KEY = "another-secret-key-that-is-long-enough-for-a-test"

    again = NotificationChannel.objects.get(pk=channel.pk)

    assert again.target is None
    assert "SECRET_KEY was changed" in again.masked_target


def test_a_title_is_always_one_line(cast: Cast) -> None:
    channel = make_channel(cast.acme, by=cast.admin)

    send_notification(
        cast.acme, NotificationKind.UPGRADE_ENDED, title="Acme\r\nBcc: all@example.com\x00\u2028" + "x" * 300
    )

    assert deliveries(channel)[0].title == "Acme Bcc: all@example.com " + "x" * 174
    assert one_line(" a\tb ") == "a b"
