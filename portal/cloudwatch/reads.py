"""A limit of the reads that one person causes by asking for ever other times: each is a call of its own to CloudWatch,
and a value of its own in the cache."""

import time

from portal import soft_cache
from portal.errors import PortalError
from portal.models import User

# CloudWatch allows an account five reads of logs a second in total, and bills each read of metrics.
READS_PER_MINUTE = 30


def count_read(reader: User | None, *, kind: str, of: str) -> None:
    """Count a read. `kind` is a word of the error's code, `of` the words for what is read. Counts nothing without a cache.

    *Raises* PortalError 429 `too_many_<kind>_reads` beyond READS_PER_MINUTE.
    """
    if reader is None:
        return
    now = time.time()
    if soft_cache.count(f"{kind}-reads:{reader.pk}:{int(now // 60)}", seconds=60) > READS_PER_MINUTE:
        wait = 60 - int(now % 60)
        sentence = f"You read {of} more than {READS_PER_MINUTE} times in a minute. Wait {wait} s."
        raise PortalError(f"too_many_{kind}_reads", sentence, 429, retry_after=wait)
