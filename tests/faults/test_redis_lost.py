"""Redis is stopped, killed and started again while the portal's processes use it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.db.models.functions import Now
from django.test import Client
from redis import Redis

from portal.celery import app
from portal.local import embedded
from portal.models import Heartbeat
from portal.outages import forget_outages
from portal.wakeup import dispatch
from tests.conftest import PASSWORD, Cast
from tests.local_aws import ROOT
from tests.processes import wait_for, worker_environment


class OwnRedis:
    """A Redis of the test's own, which it may stop, continue, kill and start again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = directory / "redis.sock"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            embedded.redis_command(self.directory, self.socket), stdout=subprocess.DEVNULL, cwd=self.directory
        )
        wait_for(self.socket.exists)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.unlink(missing_ok=True)

    def flush(self) -> None:
        """Delete all messages and cached values. A Redis that hangs does so when it goes on."""
        with Redis(unix_socket_path=str(self.socket), socket_timeout=10) as client:
            client.flushall()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    redis = OwnRedis(tmp_path)
    yield redis
    redis.kill()


@pytest.fixture
def worker(own_redis: OwnRedis, transactional_db: None) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker of one child process, whose broker is the test's own Redis."""
    command = [sys.executable, "-W", "ignore", "-m", "celery", "--quiet", "-A", "portal", "worker"]
    process = subprocess.Popen(
        [*command, "--concurrency", "1", "--loglevel", "WARNING", "--without-mingle"],
        cwd=ROOT,
        env=worker_environment() | {"CELERY_BROKER_URL": f"redis+socket://{own_redis.socket}?virtual_host=0"},
        start_new_session=True,
    )
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture
def broker(own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dispatch to the test's own Redis."""
    for name in ("broker_url", "broker_write_url", "broker_read_url"):
        monkeypatch.setitem(app.conf, name, f"redis+socket://{own_redis.socket}?virtual_host=0")
    forget_outages()


def count_messages(redis: OwnRedis) -> tuple[int, int]:
    """Return how many messages wait in the queue, and how many a worker has taken and not confirmed."""
    with Redis(unix_socket_path=str(redis.socket)) as client:
        return int(client.llen("celery")), int(client.hlen("unacked"))  # type: ignore[arg-type] # not asynchronous


def count_connections(client: Redis) -> int:
    """Return how many connections were ever made to this Redis."""
    return int(client.info("stats")["total_connections_received"])  # type: ignore[index] # not asynchronous


def test_a_worker_goes_on_after_redis_is_lost_with_a_message_in_work(
    own_redis: OwnRedis, worker: subprocess.Popen[bytes], broker: None, settings: Any
) -> None:
    settings.OUTAGE_RETRY_SECONDS = 0.1
    Heartbeat.objects.create(name="worker", beat_at=Now() - timedelta(days=1))
    with transaction.atomic():
        Heartbeat.objects.select_for_update().get()  # the tasks wait for this row
        for _ in range(6):
            assert dispatch("portal.tasks.worker_beat")
        wait_for(lambda: count_messages(own_redis)[1] > 0)
        own_redis.kill()
    wait_for(lambda: Heartbeat.objects.filter(beat_at__gt=Now() - timedelta(minutes=1)).exists())
    Heartbeat.objects.update(beat_at=Now() - timedelta(days=1))

    own_redis.start()
    wait_for(lambda: dispatch("portal.tasks.worker_beat"))

    wait_for(lambda: Heartbeat.objects.filter(beat_at__gt=Now() - timedelta(minutes=1)).exists(), seconds=30)
    assert worker.poll() is None


def test_dispatches_share_a_connection_that_survives_a_restart(own_redis: OwnRedis, broker: None) -> None:
    with Redis(unix_socket_path=str(own_redis.socket)) as client:
        assert dispatch("portal.tasks.worker_beat")
        before = count_connections(client)
        assert all(dispatch("portal.tasks.worker_beat") for _ in range(5))
        assert count_connections(client) == before
    own_redis.kill()
    own_redis.start()

    assert dispatch("portal.tasks.worker_beat")
    assert count_messages(own_redis)[0] == 1


def test_a_forked_process_has_its_own_connection(own_redis: OwnRedis, broker: None) -> None:
    assert dispatch("portal.tasks.worker_beat")

    child = os.fork()
    if child == 0:
        os._exit(0 if all(dispatch("portal.tasks.worker_beat") for _ in range(3)) else 1)
    dispatched = [dispatch("portal.tasks.worker_beat") for _ in range(3)]

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert all(dispatched)
    assert count_messages(own_redis)[0] == 7


def test_a_channel_whose_connection_is_gone_can_be_closed(own_redis: OwnRedis, broker: None) -> None:
    """kombu 5.7 raised AttributeError when it put unconfirmed messages back, and that ended the worker."""
    assert dispatch("portal.tasks.worker_beat")
    connection = app.connection_for_read()
    channel = connection.channel()
    assert channel.basic_get("celery") is not None
    connection.transport.client = None  # as Connection.collect leaves it

    channel.close()

    assert count_messages(own_redis) == (0, 1)


def test_a_cache_is_used_again_after_it_hung(own_redis: OwnRedis, db: None, cast: Cast, settings: Any) -> None:
    settings.OUTAGE_RETRY_SECONDS = 0.1
    settings.CACHES = {"default": {"BACKEND": "portal.cache.RedisCache", "LOCATION": f"unix://{own_redis.socket}?db=1"}}
    settings.CACHES["default"]["OPTIONS"] = {"socket_timeout": 0.5}

    def sign_in() -> int:
        body = json.dumps({"email": cast.viewer.email, "password": PASSWORD})
        return Client().post("/api/v1/auth/login", body, content_type="application/json").status_code

    assert sign_in() == 200
    own_redis.process.send_signal(signal.SIGSTOP)
    assert [sign_in(), sign_in()] == [503, 503]
    own_redis.process.send_signal(signal.SIGCONT)
    wait_for(lambda: sign_in() != 503)
