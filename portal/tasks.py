"""The portal's own background work: notifications, heartbeats (shown by /health and on every page) and the audit trail."""

import logging

from celery import shared_task
from django.db.models.functions import Now

from portal import retention
from portal.audit import write_repeats
from portal.audit_chain import claim_verification, verify_and_store
from portal.elevation import end_expired
from portal.models import Heartbeat
from portal.monitoring.counted import delete_stale_counts
from portal.notifications import delivery
from portal.wakeup import dispatch

logger = logging.getLogger(__name__)


def record_heartbeats() -> None:
    """Record the scheduler's heartbeat and dispatch a task that records a worker's."""
    record_heartbeat("scheduler")
    dispatch("portal.tasks.worker_beat")


@shared_task
def worker_beat() -> None:
    record_heartbeat("worker")


def record_heartbeat(name: str) -> None:
    Heartbeat.objects.update_or_create(name=name, defaults={"beat_at": Now()})


def sweep_notifications() -> None:
    delivery.sweep()


def delete_old_notifications() -> None:
    delivery.delete_old_deliveries()


def delete_old_idempotency_keys() -> None:
    retention.delete_old_idempotency_keys()


def delete_ended_tokens() -> None:
    retention.delete_ended_tokens()


def delete_expired_sessions() -> None:
    retention.delete_expired_sessions()


def write_audit_repeats() -> None:
    write_repeats()


def end_expired_staff_access() -> None:
    end_expired()


# Longer than the time limit of other tasks: it reads the whole audit trail.
VERIFY_SECONDS = 3600


def start_audit_verification() -> None:
    """Dispatch the daily verification if it is due. A lost message is sent again once it counts as lost."""
    if claim_verification():
        dispatch("portal.tasks.verify_audit")


@shared_task(time_limit=VERIFY_SECONDS, soft_time_limit=VERIFY_SECONDS)
def verify_audit() -> None:
    for finding in verify_and_store().findings:
        logger.critical("audit trail: %s", finding)


def delete_old_metrics() -> None:
    delete_stale_counts()
