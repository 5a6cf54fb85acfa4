"""History of a service's task counts, from which its metrics are computed. It stores changes, not points."""

from portal.sandbox.records import Counts, Service, Task

CHANGES_KEPT = 1000
PAST_TASKS_KEPT = 100
PAST_TASKS_KEPT_SECONDS = 7 * 86400.0

GONE = -1  # the desired count of a deleted service


def record_counts(service: Service, now: float) -> None:
    """Record the desired, running and pending tasks if they differ from the last record."""
    live = [task for task in service.tasks if task.is_live]
    running = sum(task.is_running for task in live)
    desired = GONE if service.status == "INACTIVE" else service.desired
    note_counts(service, now, desired, running, len(live) - running)


def note_counts(service: Service, at: float, desired: int, running: int, pending: int) -> None:
    if service.counts and service.counts[-1][1:] == (desired, running, pending):
        return
    service.counts.append(Counts(at, desired, running, pending))
    del service.counts[:-CHANGES_KEPT]


def keep_past_tasks(service: Service, tasks: list[Task], now: float) -> None:
    """Keep the stopped tasks that ECS drops, so that their log streams stay readable for some days."""
    kept = [*service.past_tasks, *(task for task in tasks if task.started_at is not None)]
    service.past_tasks = [task for task in kept if (task.stopped_at or now) > now - PAST_TASKS_KEPT_SECONDS][
        -PAST_TASKS_KEPT:
    ]


def inherit(service: Service, earlier: Service, now: float) -> None:
    """Give a service the logs and metrics of a deleted one with the same name, as CloudWatch knows only names."""
    service.counts = earlier.counts
    service.revisions = {**earlier.revisions, **service.revisions}
    service.past_tasks = earlier.past_tasks
    keep_past_tasks(service, earlier.tasks, now)
