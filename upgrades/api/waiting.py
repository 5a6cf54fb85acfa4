"""Holds the answer about an upgrade until it is as far as the client asks, for 25 seconds at most.

A waiting request occupies a thread, so each process has at most two places. Between two short reads it holds neither a
transaction nor a lock. Without a free place the client gets the present state and asks again.
"""

import threading
import time
from enum import StrEnum

from django.conf import settings
from rest_framework.request import Request

from portal.draining import has_begun
from upgrades.models import Upgrade
from upgrades.states import OPEN, TERMINAL, Outcome, Validation

MAX_WAIT_SECONDS = 25
POLL_SECONDS = 0.5
# After the time is over the client asks again immediately, without a free place a little later.
AGAIN_SECONDS, FULL_SECONDS = 1, 5
# Half of the threads may wait for AWS (portal/aws/bulkhead.py). One is always left for other requests.
_places = threading.BoundedSemaphore(max(0, min(2, (settings.WEB_THREADS - 1) // 2)))


class Wait(StrEnum):
    """How far an upgrade has to be. Each is also reached when the upgrade has ended otherwise."""

    SERVING = "serving"
    DONE = "done"
    VALIDATED = "validated"


def wait_until(request: Request, upgrade_id: str, wait: Wait, seconds: int) -> int | None:
    """Wait for the upgrade. Return None if it is as far, else the seconds after which the client asks again.

    An upgrade that the person may not see counts as reached: the caller answers 404.
    *Costs* one query every POLL_SECONDS.
    """
    if is_reached(request, upgrade_id, wait):
        return None
    if not _places.acquire(blocking=False):
        return FULL_SECONDS
    began = time.monotonic()
    try:
        while time.monotonic() - began < seconds and not has_begun():
            time.sleep(POLL_SECONDS)
            if is_reached(request, upgrade_id, wait):
                return None
        return AGAIN_SECONDS
    finally:
        _places.release()
        request._request.waited_seconds = time.monotonic() - began  # type: ignore[attr-defined] # for the latency's count


def is_reached(request: Request, upgrade_id: str, wait: Wait) -> bool:
    """Return whether the upgrade is as far. *Costs* one query."""
    rows = Upgrade.objects.visible_to(request.user).filter(upgrade_id=upgrade_id).order_by()
    found = list(rows.values_list("status", "validation", "rollouts__status", "rollouts__outcome"))
    if wait is Wait.SERVING:
        return all(status in TERMINAL or outcome == Outcome.BAKING for _, _, status, outcome in found)
    if wait is Wait.DONE:
        return all(status not in OPEN for status, _, _, _ in found)
    return all(status not in OPEN and validation != Validation.NEEDED for status, validation, _, _ in found)
