"""The cache backend of settings.CACHES: Django's Redis cache behind a circuit (portal/outages.py).

It covers every use of the cache, including allauth's rate limits. While Redis hangs, one call every
OUTAGE_RETRY_SECONDS waits for the time-out, and all others fail without waiting. Each failure is a RedisError.
"""

from collections.abc import Callable
from typing import Any

from django.core.cache.backends import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from portal.outages import CircuitOpen, get_circuit


class CacheAway(RedisConnectionError):
    """The cache failed a moment ago and was not asked."""


class RedisCache(redis.RedisCache):
    def __init__(self, server: Any, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._class = GuardedClient


class GuardedClient:
    """Django's Redis client, with each method behind the process's circuit for these servers."""

    def __init__(self, servers: list[str], **options: Any) -> None:
        self._client = redis.RedisCacheClient(servers, **options)
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
