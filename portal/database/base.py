"""Django's backend for PostgreSQL, with the context of organizations that row-level security reads (portal/tenancy.py).

The context belongs to the work in progress, the setting to the connection. Before each statement the backend compares the
two and sets the connection where they differ, so a new connection in the middle of a request works with the same context.
"""

from typing import Any

from django.db.backends.postgresql import base
from psycopg import errors
from psycopg.pq import ExecStatus, TransactionStatus

from portal import tenancy

SET = b"SELECT set_config('portal.organizations', $1, false)"
END = b"SET portal.organizations = '{}'"


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that knows which context PostgreSQL has. None means that this is not known."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_in_database: str | None = None

    def init_connection_state(self) -> None:
        self.context_in_database = None
        super().init_connection_state()

    def create_cursor(self, name: str | None = None) -> Any:
        self.set_context()
        return super().create_cursor(name)

    def set_context(self) -> bool:
        """Give PostgreSQL the present context if it has another one. Costs a round trip only then.

        Return False in a failed transaction, in which nothing can be set: no statement reads a row there, and its rollback
        makes the context unknown.
        """
        wanted = tenancy.current()
        if wanted == self.context_in_database or self.connection is None:
            return True
        raw = self.connection.pgconn
        if raw.transaction_status == TransactionStatus.INERROR:
            return False
        # Not by a cursor of psycopg: that takes three times the CPU, and would begin the transaction.
        result = raw.exec_(END) if wanted == tenancy.NOTHING else raw.exec_params(SET, [wanted.encode()])
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise errors.error_from_result(result)
        self.context_in_database = wanted
        return True

    def _rollback(self) -> None:
        super()._rollback()  # type: ignore[misc] # the stubs leave it out
        self.context_in_database = None

    def _savepoint_rollback(self, sid: str) -> None:
        super()._savepoint_rollback(sid)  # type: ignore[misc] # the stubs leave it out
        self.context_in_database = None
