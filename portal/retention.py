"""Deletes rows that are no longer kept, a batch at a time, so that a run of the scheduler returns quickly.

What only speeds things up (readings of AWS, rates) is in the cache and expires there. Audit rows are exported and pruned
by `manage.py prune_audit` instead, which the application's role may not do (portal/audit_pruning.py).
"""

from datetime import timedelta
from importlib import import_module
from typing import Any

from allauth.usersessions.models import UserSession
from django.conf import settings
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.functions import Now

from portal.models import ApiToken, IdempotencyKey
from portal.tenancy import all_organizations

ROWS_PER_RUN = 1000
# Ended tokens are kept so long, in which an expired one is still listed. The audit trail keeps their ends.
TOKEN_DAYS = 90


def delete_expired_sessions() -> None:
    """Delete expired sessions, anonymous ones included, and their entries in the lists of devices."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    sessions: QuerySet[Any] = store.get_model_class().objects.all()
    delete(sessions, list(sessions.filter(expire_date__lt=Now()).values_list("pk", flat=True)[:ROWS_PER_RUN]))
    session = Exists(sessions.filter(session_key=OuterRef("session_key")))
    devices = UserSession.objects.all()
    delete(devices, list(devices.filter(~session).values_list("pk", flat=True)[:ROWS_PER_RUN]))


@all_organizations("keys of every organization are deleted")
def delete_old_idempotency_keys() -> None:
    """Delete keys after IDEMPOTENCY_RETENTION_DAYS. The same key then counts as a new one."""
    kept = timedelta(days=settings.IDEMPOTENCY_RETENTION_DAYS)
    keys = IdempotencyKey.objects.all()
    delete(keys, list(keys.filter(created_at__lt=Now() - kept).values_list("pk", flat=True)[:ROWS_PER_RUN]))


@all_organizations("tokens of every organization are deleted")
def delete_ended_tokens() -> None:
    """Delete API tokens that were revoked or expired TOKEN_DAYS ago."""
    before = Now() - timedelta(days=TOKEN_DAYS)
    tokens = ApiToken.objects.filter(Q(revoked_at__lt=before) | Q(expires_at__lt=before))
    delete(ApiToken.objects.all(), list(tokens.values_list("pk", flat=True)[:ROWS_PER_RUN]))


def delete(rows: QuerySet[Any], pks: list[Any]) -> None:
    if pks:
        rows.filter(pk__in=pks).delete()
