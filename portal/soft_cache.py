"""Cache wrapper that treats a Redis outage as a cache miss.

Data that must not be lost (the rate limits of sign-in) does not use this wrapper. portal/cache.py logs the outage and
keeps it from costing each caller a time-out.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from django.core.cache import cache
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

logger = logging.getLogger(__name__)

Cached = TypeVar("Cached")


def build_key(kind: str, *parts: object) -> str:
    """Return a key of bounded length for parts that may be long, such as ARNs and images.

    >>> build_key("diff", "a" * 1000) == build_key("diff", "a" * 1000), len(build_key("diff", "a" * 1000))
    (True, 37)
    """
    return f"{kind}:{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"


def read(key: str) -> Any:
    """Return the cached value; None on a cache miss."""
    with ignore_outage():
        return cache.get(key)
    return None


def read_many(keys: list[str]) -> dict[str, Any]:
    """Return the cached values by key, without those that are not cached. *Costs* one round trip."""
    with ignore_outage():
        return dict(cache.get_many(keys))
    return {}


def read_as(key: str, build: Callable[[Any], Cached]) -> Cached | None:
    """Return the cached value converted by `build`; None on a cache miss.

    While the portal is upgraded, two releases share one cache. A value in another release's shape, for which `build`
    raises TypeError, KeyError or ValueError, is a cache miss.
    """
    cached = read(key)
    try:
        return build(cached) if cached is not None else None
    except (TypeError, KeyError, ValueError):
        return None


def write(key: str, value: Any, *, seconds: float) -> None:
    with ignore_outage():
        cache.set(key, value, seconds)


def add(key: str, *, seconds: float) -> bool:
    """Return whether this is the first call with the key in `seconds`. Always True while the cache is down."""
    with ignore_outage():
        return bool(cache.add(key, True, seconds))
    return True


def count(key: str, *, seconds: float) -> int:
    """Return how often this was called with the key in `seconds`. Always 0 while the cache is down."""
    with ignore_outage():
        cache.add(key, 0, seconds)
        with suppress(ValueError):  # the key has ended meanwhile
            return int(cache.incr(key))
    return 0


def select_first(keys: list[str], *, seconds: float) -> list[str]:
    """Return the keys that were not passed here within so many seconds; all of them while the cache is down.

    Concurrent callers may both get a key: use `is_first` where that matters.
    *Costs* two round trips, however many keys there are.
    """
    if not keys:
        return []
    with ignore_outage():
        known = cache.get_many(keys)
        first = [key for key in keys if key not in known]
        if first:
            cache.set_many(dict.fromkeys(first, True), seconds)
        return first
    return keys


def delete(key: str) -> None:
    with ignore_outage():
        cache.delete(key)


@contextmanager
def ignore_outage() -> Iterator[None]:
    try:
        yield
    except (RedisConnectionError, RedisTimeoutError):
        pass  # portal/cache.py has logged and counted it
    except RedisError as error:
        logger.warning("cache refused: %s", type(error).__name__)
