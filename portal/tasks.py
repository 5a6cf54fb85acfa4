"""Heartbeats: the proof that scheduler and worker are alive, shown by /health and by a banner on every page."""

from celery import shared_task
from django.db.models.functions import Now

from portal.doorbell import ring
from portal.models import Heartbeat


def beat() -> None:
    """The scheduler's heartbeat; it also asks a worker for its own."""
    note_beat("scheduler")
    ring("portal.tasks.worker_beat")


@shared_task
def worker_beat() -> None:
    note_beat("worker")


def note_beat(name: str) -> None:
    Heartbeat.objects.update_or_create(name=name, defaults={"beat_at": Now()})
