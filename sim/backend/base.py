"""Django's backend for PostgreSQL with steps of the scheduler. It changes no statement."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from django.db import DatabaseError, connections
from psycopg.pq import TransactionStatus

from portal.database import base
from sim.clock import CLOCK
from sim.journal import BROKEN
from sim.scheduler import Killed, Task, current

# Virtual seconds that a commit takes, if others run meanwhile.
COMMIT_SECONDS = (0.001, 0.05)


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection of one task. Each commit and each write outside a transaction is a step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute_wrappers.append(run_statement)

    def _commit(self) -> None:
        step("before commit")
        task = current()
        # A commit waits too: it checks foreign keys, whose rows others may have locked.
        with watch(task, self) if task is not None else nullcontext():
            super()._commit()  # type: ignore[misc] # not in its stubs
        step("committed")

    def _rollback(self) -> None:
        super()._rollback()
        task = current()
        if task is not None and self.connection is not None and not task.is_dying:
            step("rolled back")

    def _set_autocommit(self, autocommit: bool) -> None:
        # A dying task leaves `atomic` in the middle of a commit. An error here would hide that it was killed.
        task = current()
        if task is not None and task.is_dying:
            raise Killed
        super()._set_autocommit(autocommit)  # type: ignore[misc] # not in its stubs


def drop_transaction() -> None:
    """Close this thread's connection if it is in a transaction, as the server does when a process dies."""
    wrapper = connections["default"]
    raw = wrapper.connection
    is_in_transaction = wrapper.in_atomic_block or not wrapper.autocommit
    if raw is not None and (is_in_transaction or raw.info.transaction_status != TransactionStatus.IDLE):
        raw.close()
        del connections["default"]


def step(label: str) -> None:
    task = current()
    if task is not None:
        task.pause_sometimes(COMMIT_SECONDS, label)


def run_statement(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
    CLOCK.set_database()
    task = current()
    if task is None:
        return execute(sql, params, many, context)
    if task.is_dying:
        raise Killed
    connection = context["connection"]
    try:
        with watch(task, connection):
            result = execute(sql, params, many, context)
    except DatabaseError as error:
        if getattr(error.__cause__, "sqlstate", None) != BROKEN:
            raise
        task.scheduler.broken = str(error).partition("\n")[0]
        task.is_dying = True
        raise Killed from error
    if not connection.in_atomic_block and not sql.startswith("SELECT"):
        task.pause_sometimes(COMMIT_SECONDS, "written")
    return result


@contextmanager
def watch(task: Task, connection: Any) -> Iterator[None]:
    """Let the scheduler see whether the statement waits for a lock.

    A task that waited stops after it: the task that released the lock has not reached its next step.
    """
    task.backend_pid = connection.connection.info.backend_pid
    try:
        yield
    finally:
        task.backend_pid = None
        if task.is_locked_out:
            task.pause(0.0, "lock gained")
