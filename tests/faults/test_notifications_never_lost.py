"""A recorded notification is sent at least once, always with the same id, even if a scheduler dies."""

import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from portal.leases import LeaseLost
from portal.models.notifications import NotificationDelivery
from portal.notifications.delivery import may_be_sent, post, record_result
from portal.tasks import sweep_notifications
from tests.conftest import Cast
from tests.local_aws import ROOT
from tests.notifications.conftest import (
    deliver,
    deliver_now,
    deliveries,
    get_head,
    make_channel,
    receiver,
    send_notification,
    wait_for_senders,
)
from tests.outside import Outside
from tests.processes import worker_environment

__all__ = ["receiver"]

pytestmark = pytest.mark.django_db(transaction=True)

SCHEDULER = [sys.executable, "manage.py", "run_scheduler"]


@pytest.fixture
def message(cast: Cast, receiver: Outside) -> NotificationDelivery:
    channel = make_channel(cast.acme, by=cast.admin, target=f"{receiver.url}/in")
    send_notification(cast.acme)
    return deliveries(channel)[0]


def test_message_is_resent_with_its_id_after_a_kill(message: NotificationDelivery, receiver: Outside) -> None:
    arrived, killed = threading.Event(), threading.Event()

    def take_and_wait(connection: Any, request: str) -> None:
        arrived.set()
        killed.wait(20)

    answer = receiver.answers["/in"]
    receiver.answers["/in"] = take_and_wait
    scheduler = subprocess.Popen(
        SCHEDULER, cwd=ROOT, env=worker_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert arrived.wait(30)
    os.kill(scheduler.pid, signal.SIGKILL)
    scheduler.wait()
    killed.set()
    message.refresh_from_db()
    assert (message.status, message.tries, message.attempts) == ("pending", 1, [])
    assert not deliver(message)  # the killed scheduler still holds the lease

    receiver.answers["/in"] = answer
    deliver_now(message)

    assert (message.status, message.tries) == ("sent", 2)
    first, second = (get_head(request)["webhook-id"] for request in receiver.requests)
    assert first == second == message.message_id


def test_sender_that_lost_its_lease_writes_nothing(message: NotificationDelivery, receiver: Outside) -> None:
    """It paused while sending, and another sender sent the message and recorded that."""
    from portal.notifications.delivery import NEXT_DELIVERY

    (lease,) = NEXT_DELIVERY.take()
    assert may_be_sent(lease)
    result = post(lease.row, now=lease.now)
    deliver_now(message)

    with pytest.raises(LeaseLost):
        record_result(lease, result, seconds=0)

    message.refresh_from_db()
    assert len(message.attempts) == 1


def test_many_schedulers_send_it_once(message: NotificationDelivery, receiver: Outside) -> None:
    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for_senders()

    assert len(receiver.requests) == 1


def run() -> None:
    from django.db import connection

    try:
        sweep_notifications()
    finally:
        connection.close()


def test_a_scheduler_that_is_stopped_ends_its_sends_first(message: NotificationDelivery, receiver: Outside) -> None:
    arrived, stopped = threading.Event(), threading.Event()
    answer = receiver.answers["/in"]

    def take_and_wait(connection: Any, request: str) -> None:
        arrived.set()
        stopped.wait(20)
        answer(connection, request)

    receiver.answers["/in"] = take_and_wait
    scheduler = subprocess.Popen(SCHEDULER, cwd=ROOT, env=worker_environment())
    assert arrived.wait(30)
    scheduler.terminate()
    stopped.set()

    assert scheduler.wait(20) == 0
    message.refresh_from_db()
    assert (message.status, len(receiver.requests)) == ("sent", 1)
