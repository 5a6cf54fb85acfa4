"""The cache backends of settings.CACHES: plain data only, and Redis behind a circuit (portal/outages.py).

All users of the cache are covered, also the rate limits of allauth. While Redis hangs, one call every
OUTAGE_RETRY_SECONDS waits for the time-out, and all others fail without waiting. Each failure is a RedisError.

Django's own serializer runs whatever code a pickle in Redis names, so anyone who can write to Redis could run code here.
Ours reads no class but PLAIN_CLASSES (https://docs.python.org/3/library/pickle.html#restricting-globals).
"""

import io
import pickle
from collections.abc import Callable
from typing import Any

from django.core.cache.backends import locmem, redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from portal.outages import CircuitOpen, get_circuit


class CacheAway(RedisConnectionError):
    """The cache failed a moment ago and was not asked."""


# What a pickle may name, beside what needs no name: None, numbers, text, bytes, lists, tuples, sets and mappings.
PLAIN_CLASSES = {("datetime", name) for name in ("datetime", "date", "timedelta", "timezone")}


class RefusedValue(RedisError):
    """The cache has, or was given, something else than plain data."""


class PlainUnpickler(pickle.Unpickler):
    """Reads plain data. Raises RefusedValue for a pickle that names anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in PLAIN_CLASSES:
            raise RefusedValue(f"The cache takes plain data, not {module}.{name}.")
        return super().find_class(module, name)


class PlainSerializer(redis.RedisSerializer):
    """Django's serializer, which reads plain data only."""

    def loads(self, data: Any) -> Any:
        """Return the value. Raises RefusedValue."""
        try:
            return int(data)
        except ValueError:
            return load_plain(data)


def load_plain(data: bytes) -> Any:
    """Return what `data` holds. Raises RefusedValue if it is no pickle of plain data."""
    try:
        return PlainUnpickler(io.BytesIO(data)).load()
    except RefusedValue:
        raise
    except Exception as error:  # whatever a damaged pickle raises
        raise RefusedValue("The cache has a value that cannot be read.") from error


class LocalCache(locmem.LocMemCache):
    """The cache of one process. It takes the same values as Redis does."""

    def set(self, key: Any, value: Any, *args: Any, **more: Any) -> None:
        super().set(key, as_read(value), *args, **more)

    def add(self, key: Any, value: Any, *args: Any, **more: Any) -> bool:
        return super().add(key, as_read(value), *args, **more)


def as_read(value: Any) -> Any:
    """Return the value as Redis would return it. Raises TypeError for anything but plain data."""
    try:
        return load_plain(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    except RefusedValue as error:
        raise TypeError(str(error)) from error


class RedisCache(redis.RedisCache):
    def __init__(self, server: Any, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._class = GuardedClient


class KeptClient(redis.RedisCacheClient):
    """Django's Redis client, which keeps its clients of redis-py: making one costs as much CPU as a command."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._clients: dict[bool, Any] = {}

    def get_client(self, key: Any = None, *, write: bool = False) -> Any:
        """Return the client. It holds no connection: each command takes one from the server's pool."""
        if write not in self._clients:
            self._clients[write] = super().get_client(key, write=write)
        return self._clients[write]


class GuardedClient:
    """Django's Redis client, with each method behind the process's circuit for these servers."""

    def __init__(self, servers: list[str], **options: Any) -> None:
        self._client = KeptClient(servers, **{"serializer": PlainSerializer, **options})
        self._servers = ",".join(servers)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method: Callable[..., Any] = getattr(self._client, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                with get_circuit("cache", self._servers).guard(RedisConnectionError, RedisTimeoutError):
                    return method(*args, **kwargs)
            except CircuitOpen as refusal:
                raise CacheAway(str(refusal)) from None

        return call
