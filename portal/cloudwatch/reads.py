"""A limit of the reads that one person causes by asking for ever other times: each is a call of its own to CloudWatch,
and a value of its own in the cache."""

import time
from dataclasses import dataclass

from portal import soft_cache
from portal.models import User
from portal.rate_limits import RateLimit

# CloudWatch allows an account five reads of logs a second in total, and bills each read of metrics.
READS_PER_MINUTE = 30


@dataclass(frozen=True)
class ReadLimit(RateLimit):
    """At most READS_PER_MINUTE reads in each minute of a person. Counts nothing without a cache."""

    quota: int = READS_PER_MINUTE
    window: int = 60

    def spend(self, reader: User | None) -> int:
        """Count a read. Return 0, or the seconds to wait if the person has read too often. None counts nothing."""
        if reader is None:
            return 0
        key, wait = self.this_minute(reader)
        return wait if soft_cache.count(key, seconds=60) > READS_PER_MINUTE else 0

    def headers_for(self, reader: User) -> dict[str, str]:
        """Return the headers that say how much the person may still read in this minute."""
        key, wait = self.this_minute(reader)
        return self.headers(READS_PER_MINUTE - int(soft_cache.read(key) or 0), seconds=wait)

    def this_minute(self, reader: User) -> tuple[str, int]:
        """Return the key of the person's reads in the present minute, and the seconds until it is over."""
        now = time.time()
        return f"{self.name}:{reader.pk}:{int(now // 60)}", 60 - int(now % 60)


def describe_too_many(of: str, wait: int) -> str:
    return f"You read {of} more than {READS_PER_MINUTE} times in a minute. Wait {wait} s."
