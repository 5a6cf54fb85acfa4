"""Marks the deployments that people are viewing. The reconciler polls them more often."""

import uuid
from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.db.models.functions import Now

from deployments.models import Deployment
from portal import soft_cache
from portal.after_response import write_after_response

# How long a deployment is polled often after it was last viewed.
WATCH_DURATION = timedelta(seconds=20)
WATCH_WRITE_SECONDS = 5


def mark_watched(*deployments: Deployment) -> None:
    """Mark deployments as being viewed so that the reconciler polls them more often, after the response was sent.

    Does not fail if a row is gone or locked, the database is read-only or the cache is down.

    *Costs* one transaction every few seconds; none while the last mark is recent. One each time while the cache is down.
    """
    keys = {f"watched:{each.pk}": each.pk for each in deployments}
    unmarked = soft_cache.select_first(list(keys), seconds=WATCH_WRITE_SECONDS)
    if unmarked:
        write_after_response(lambda: write_watched([keys[key] for key in unmarked]))


def mark_unmarked(pks: list[uuid.UUID]) -> None:
    """Mark these deployments, whose marks are old, as `mark_watched` does. *Costs* one transaction if there are any."""
    if pks:
        write_after_response(lambda: write_watched(pks))


def write_watched(pks: list[Any]) -> None:
    rows = Deployment.unfinished().filter(pk__in=pks)
    rows.filter(Q(watched_until__isnull=True) | Q(watched_until__lt=Now())).update(next_check_at=Now())
    rows.update(watched_until=Now() + WATCH_DURATION)
