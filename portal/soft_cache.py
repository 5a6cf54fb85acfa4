"""The cache as a memory: while it does not answer the portal has forgotten, and works on.

What must not be forgotten (the rate limits of sign-in) does not come through here.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.core.cache import cache
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

Kept = TypeVar("Kept")


def key_of(kind: str, *parts: object) -> str:
    """A key of bounded length for parts that may be long: ARNs, images.

    >>> key_of("diff", "a" * 1000) == key_of("diff", "a" * 1000), len(key_of("diff", "a" * 1000))
    (True, 37)
    """
    return f"{kind}:{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"


def recall(key: str) -> Any:
    """What was remembered; None for what was not, or no longer."""
    with forgetful():
        return cache.get(key)
    return None


def recall_as(key: str, build: Callable[[Any], Kept]) -> Kept | None:
    """What was remembered, made from it by `build`; None for what was not.

    What another release of the portal kept in another shape, for which `build` raises TypeError, KeyError or ValueError,
    counts as nothing: while the portal is upgraded, both use one cache.
    """
    kept = recall(key)
    try:
        return build(kept) if kept is not None else None
    except (TypeError, KeyError, ValueError):
        return None


def remember(key: str, value: Any, *, seconds: float) -> None:
    with forgetful():
        cache.set(key, value, seconds)


def is_first(key: str, *, seconds: float) -> bool:
    """Whether nobody else came with this key within so many seconds. True for everybody while there is no memory."""
    with forgetful():
        return bool(cache.add(key, True, seconds))
    return True


def forget(key: str) -> None:
    with forgetful():
        cache.delete(key)


@contextmanager
def forgetful() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        logger.warning("cache does not answer: %s", type(error).__name__)
