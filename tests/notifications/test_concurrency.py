"""Admins, triggers and double clicks at the same moment, each on a connection of its own."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

from portal.errors import PortalError
from portal.models import AuditEvent, User
from portal.models.notifications import ChannelKind, NotificationChannel, NotificationDelivery
from portal.notifications import commands
from tests.conftest import Cast
from tests.notifications.conftest import TARGETS, make_channel, tell

pytestmark = pytest.mark.django_db(transaction=True)


class Others:
    """Calls that run beside the test; `results` are what they returned or raised."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.threads: list[threading.Thread] = []

    def start(self, call: Callable[[], Any]) -> threading.Thread:
        def run() -> None:
            try:
                self.results.append(call())
            except Exception as error:
                self.results.append(error)
            finally:
                connection.close()

        thread = threading.Thread(target=run)
        self.threads.append(thread)
        thread.start()
        return thread

    def wait(self) -> list[Any]:
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()
        return self.results


def waits_for_a_lock(thread: threading.Thread) -> bool:
    """Whether it is still there after what would have been time enough."""
    thread.join(1)
    return thread.is_alive()


def test_who_removes_a_channel_waits_for_who_writes_to_it(cast: Cast) -> None:
    channel = make_channel(cast.acme, by=cast.admin)
    others = Others()

    with transaction.atomic():
        tell(cast.acme)
        assert waits_for_a_lock(others.start(lambda: commands.remove_channel(channel, actor=cast.admin)))

    assert others.wait() == [None]
    assert not NotificationChannel.objects.exists()
    assert not NotificationDelivery.objects.exists()


def test_who_writes_to_a_channel_that_is_being_removed_writes_nothing(cast: Cast) -> None:
    """And does not fail for it: a trigger must not."""
    channel = make_channel(cast.acme, by=cast.admin)
    others = Others()

    with transaction.atomic():
        commands.remove_channel(channel, actor=cast.admin)
        assert waits_for_a_lock(others.start(lambda: tell(cast.acme)))

    assert others.wait() == [None]
    assert not NotificationDelivery.objects.exists()


@pytest.mark.parametrize(
    "command",
    [
        lambda channel, admin: commands.change_channel(channel, actor=admin, name="Renamed", events=["upgrade.ended"]),
        lambda channel, admin: commands.switch_channel(channel, actor=admin, is_active=False),
        lambda channel, admin: commands.renew_secret(channel, actor=admin),
        lambda channel, admin: commands.test_channel(channel, actor=admin),
    ],
    ids=["change", "switch", "renew", "test"],
)
def test_who_acts_on_a_channel_that_is_being_removed_is_told_that_it_is_gone(
    cast: Cast, command: Callable[[NotificationChannel, User], Any]
) -> None:
    channel = make_channel(cast.acme, by=cast.admin)
    others = Others()

    with transaction.atomic():
        commands.remove_channel(channel, actor=cast.admin)
        assert waits_for_a_lock(others.start(lambda: command(channel, cast.admin)))

    (error,) = others.wait()
    assert isinstance(error, PortalError)
    assert (error.code, error.status) == ("not_found", 404)
    assert [event.kind for event in AuditEvent.objects.all()] == ["channel.removed"]


def test_a_form_sent_eight_times_at_once_makes_one_channel_and_shows_one_secret(cast: Cast) -> None:
    others = Others()

    def create() -> commands.Created:
        return commands.create_channel(
            cast.acme,
            actor=cast.admin,
            kind=ChannelKind.WEBHOOK,
            name="Ops",
            target=TARGETS["webhook"],
            events=["upgrade.ended"],
            idempotency_key="form-1",
        )

    for _ in range(8):
        others.start(create)

    made = others.wait()
    assert {each.channel.pk for each in made} == {NotificationChannel.objects.get().pk}
    assert len([each.secret for each in made if each.secret]) == 1
    assert AuditEvent.objects.count() == 1


def test_eight_tests_at_once_are_one(cast: Cast) -> None:
    channel = make_channel(cast.acme, by=cast.admin)
    others = Others()
    for _ in range(8):
        others.start(lambda: commands.test_channel(channel, actor=cast.admin))

    refused = [result for result in others.wait() if isinstance(result, PortalError)]

    assert {(error.code, error.status) for error in refused} == {("tested_already", 429)}
    assert (len(refused), NotificationDelivery.objects.count()) == (7, 1)


def test_a_second_secret_asked_for_at_once_does_not_push_out_the_first(cast: Cast) -> None:
    channel = make_channel(cast.acme, by=cast.admin)
    signs = channel.sealed_secret
    others = Others()
    for _ in range(4):
        others.start(lambda: commands.renew_secret(channel, actor=cast.admin, idempotency_key="secret-1"))

    shown = [result for result in others.wait() if result]

    assert len(shown) == 1
    channel.refresh_from_db()
    assert channel.sealed_old_secret == signs
