"""Concurrent admins, triggers and double clicks, each on its own connection."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

from portal import tenancy
from portal.errors import PortalError
from portal.models import User
from portal.models.notifications import ChannelKind, NotificationChannel, NotificationDelivery
from portal.notifications import commands
from tests.conftest import Cast, audited_changes
from tests.notifications.conftest import TARGETS, make_channel, send_notification

pytestmark = pytest.mark.django_db(transaction=True)


class Others:
    """Calls that run concurrently with the test. `results` are their return values or exceptions."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.threads: list[threading.Thread] = []

    def start(self, call: Callable[[], Any]) -> threading.Thread:
        def run() -> None:
            try:
                with tenancy.all_organizations("the test"):
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
    """Return whether it is still waiting after more than enough time."""
    thread.join(1)
    return thread.is_alive()


def test_removing_a_channel_waits_for_a_writer(cast: Cast) -> None:
    channel = make_channel(cast.acme, by=cast.admin)
    others = Others()

    with transaction.atomic():
        send_notification(cast.acme)
        assert waits_for_a_lock(others.start(lambda: commands.remove_channel(channel, actor=cast.admin)))

    assert others.wait() == [None]
    assert not NotificationChannel.objects.exists()
    assert not NotificationDelivery.objects.exists()


def test_writing_to_a_channel_being_removed_writes_nothing(cast: Cast) -> None:
    """It does not fail either, because it must not fail a trigger."""
    channel = make_channel(cast.acme, by=cast.admin)
    others = Others()

    with transaction.atomic():
        commands.remove_channel(channel, actor=cast.admin)
        assert waits_for_a_lock(others.start(lambda: send_notification(cast.acme)))

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
def test_acting_on_a_channel_being_removed_finds_it_gone(
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
    assert [event.kind for event in audited_changes().all()] == ["channel.removed"]


def test_eight_concurrent_forms_create_one_channel(cast: Cast) -> None:
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
    assert audited_changes().count() == 1


def test_eight_concurrent_tests_send_one_message(cast: Cast) -> None:
    channel = make_channel(cast.acme, by=cast.admin)
    others = Others()
    for _ in range(8):
        others.start(lambda: commands.test_channel(channel, actor=cast.admin))

    refused = [result for result in others.wait() if isinstance(result, PortalError)]

    assert {(error.code, error.status) for error in refused} == {("tested_already", 429)}
    assert (len(refused), NotificationDelivery.objects.count()) == (7, 1)


def test_a_concurrent_second_secret_keeps_the_first(cast: Cast) -> None:
    channel = make_channel(cast.acme, by=cast.admin)
    signs = channel.sealed_secret
    others = Others()
    for _ in range(4):
        others.start(lambda: commands.renew_secret(channel, actor=cast.admin, idempotency_key="secret-1"))

    shown = [result for result in others.wait() if result]

    assert len(shown) == 1
    channel.refresh_from_db()
    assert channel.sealed_old_secret == signs
