"""Keeps in the cache, for a minute, which accounts and regions did not answer a page. /health shows them.

Two processes that note something at the same moment may lose one note. The next time-out notes it again.
"""

import time

from portal import soft_cache

KEY = "aws:silent"
SECONDS = 60
# The account of the portal's own credentials.
OWN_ACCOUNT = "own"


def note(account: str, region: str) -> None:
    soft_cache.write(KEY, {**read(), (account, region): time.time()}, seconds=SECONDS)


def end(account: str, region: str) -> None:
    """Note that AWS answers again."""
    silent = read()
    if silent.pop((account, region), None):
        soft_cache.write(KEY, silent, seconds=SECONDS)


def read() -> dict[tuple[str, str], float]:
    """Return when each account and region was last noted, in seconds since the epoch."""
    kept = soft_cache.read_as(KEY, dict) or {}
    return {place: at for place, at in kept.items() if at > time.time() - SECONDS}
