"""The cache takes and gives plain data only, whatever someone else wrote to Redis."""

import os
import pickle
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache, caches
from redis import Redis

from portal import soft_cache
from portal.cache import RefusedValue
from tests.conftest import Cast
from tests.portal.conftest import ApiClient

PLAIN = [
    0,
    True,
    None,
    1.5,
    "text",
    {"a": [1, 2.5, (None, b"bytes")], ("account", "region"): {1, 2}},
    datetime(2026, 11, 30, tzinfo=UTC),
    timedelta(seconds=3),
]
DAMAGED = [b"", b"no pickle", pickle.dumps("cut")[:-2], b"\x80\x05K"]


class Touch:
    """Something whose pickle creates a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture
def redis(settings: Any) -> Iterator[Redis]:
    """The Redis that the cache uses from here on."""
    path = os.environ["CELERY_BROKER_URL"].removeprefix("redis+socket://").partition("?")[0]
    settings.CACHES = {"default": {"BACKEND": "portal.cache.RedisCache", "LOCATION": f"unix://{path}?db=1"}}
    with Redis(unix_socket_path=path, db=1) as server:
        yield server
        server.flushdb()


@pytest.mark.parametrize("value", PLAIN)
def test_plain_data_comes_back_as_it_was(redis: Redis, value: Any) -> None:
    cache.set("kept", value)

    assert cache.get("kept", "missing") == value


def test_a_pickle_in_redis_runs_no_code(redis: Redis, tmp_path: Path) -> None:
    redis.set(cache.make_key("planted"), pickle.dumps(Touch(tmp_path / "touched")))

    assert soft_cache.read("planted") is None
    with pytest.raises(RefusedValue, match=r"not pathlib\.Path\.touch|not builtins\.getattr"):
        cache.get("planted")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("planted", DAMAGED)
def test_a_damaged_value_is_a_cache_miss(redis: Redis, planted: bytes) -> None:
    redis.set(cache.make_key("planted"), planted)

    assert soft_cache.read("planted") is None


def test_limits_that_someone_damaged_let_nobody_in(redis: Redis, cast: Cast) -> None:
    api = ApiClient()
    assert api.sign_in(cast.viewer, "wrong").status_code == 401
    for key in redis.keys("*login*"):
        redis.set(key, b"no pickle")

    assert api.sign_in(cast.viewer, cast.password).status_code == 503


def test_the_cache_of_one_process_takes_the_same() -> None:
    local = caches["default"]

    with pytest.raises(TypeError, match="The cache takes plain data"):
        local.set("kept", Path("/"))
    with pytest.raises(TypeError, match="The cache takes plain data"):
        local.add("kept", {"role": [Path("/")]})
