"""The portal's own background work: notifications, and heartbeats (shown by /health and in a banner on every page)."""

from celery import shared_task
from django.db.models.functions import Now

from portal.models import Heartbeat
from portal.monitoring.counted import delete_stale_counts
from portal.notifications import delivery
from portal.wakeup import dispatch


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


def delete_old_metrics() -> None:
    delete_stale_counts()
