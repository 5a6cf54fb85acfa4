"""Deletes rows that have served their time, a batch at a time, so that a run of the scheduler returns quickly.

What only speeds things up (readings of AWS, rates) is in the cache and expires there. Audit rows are exported and pruned
by `manage.py prune_audit` instead, which the application's role may not do (portal/audit_pruning.py).
"""

from datetime import timedelta
from importlib import import_module
from typing import Any

from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Now

from portal.models import IdempotencyKey

ROWS_PER_RUN = 1000


def delete_expired_sessions() -> None:
    """Delete sessions that have expired, those of no one after ANONYMOUS_SESSION_MINUTES, and their entries as devices."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    sessions: QuerySet[Any] = store.get_model_class().objects.all()
    delete(sessions, list(sessions.filter(expire_date__lt=Now()).values_list("pk", flat=True)[:ROWS_PER_RUN]))
    delete(sessions, find_anonymous_sessions(store, sessions))
    session = Exists(sessions.filter(session_key=OuterRef("session_key")))
    devices = UserSession.objects.all()
    delete(devices, list(devices.filter(~session).values_list("pk", flat=True)[:ROWS_PER_RUN]))


def find_anonymous_sessions(store: Any, sessions: QuerySet[Any]) -> list[Any]:
    """Return the keys of sessions in which no one has signed in. A page of the sign-in makes one for each visit.

    Only its content tells, so sessions that are known as somebody's device are left out first.
    """
    age = timedelta(seconds=settings.SESSION_COOKIE_AGE) - timedelta(minutes=settings.ANONYMOUS_SESSION_MINUTES)
    device = Exists(UserSession.objects.filter(session_key=OuterRef("session_key")))
    old = sessions.filter(~device, expire_date__lt=Now() + age).order_by("expire_date")
    decode = store().decode
    return [row.pk for row in old[:ROWS_PER_RUN] if SESSION_KEY not in decode(row.session_data)]


def delete_old_idempotency_keys() -> None:
    """Delete keys after IDEMPOTENCY_RETENTION_DAYS. The same key then counts as a new one."""
    kept = timedelta(days=settings.IDEMPOTENCY_RETENTION_DAYS)
    keys = IdempotencyKey.objects.all()
    delete(keys, list(keys.filter(created_at__lt=Now() - kept).values_list("pk", flat=True)[:ROWS_PER_RUN]))


def delete(rows: QuerySet[Any], pks: list[Any]) -> None:
    if pks:
        rows.filter(pk__in=pks).delete()
