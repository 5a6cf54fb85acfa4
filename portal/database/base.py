"""Django's backend for PostgreSQL, with the context of organizations that row-level security reads (portal/tenancy.py).

The context belongs to the work in progress, the setting to the connection. Before each statement the backend compares the
two and sets the connection where they differ, so a new connection in the middle of a request works with the same context.
"""

import re
import select
from functools import lru_cache
from typing import Any

from django.db.backends.postgresql import base, features, operations
from psycopg import OperationalError, errors
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus

from portal import tenancy

SET = b"SELECT set_config('portal.organizations', $1, false)"
END = b"SET portal.organizations = '{}'"


# Parameters are bound by the server, which counts them with 16 bits.
MAX_PARAMETERS = 2**16 - 1


# A page of an organization's rows. Django reads one row with LIMIT 1 or LIMIT 21, and the overview the newest few.
PAGE = re.compile(r'organization_id"? (?:=|IN) .* LIMIT (?!21\b)\d\d', re.DOTALL)
STATEMENTS_KEPT = 2000


@lru_cache(maxsize=STATEMENTS_KEPT)
def reads_page(query: str) -> bool:
    """Return whether the statement reads a page of an organization's rows."""
    return PAGE.search(query) is not None


class Cursor(base.ServerBindingCursor):
    """A cursor that prepares all statements that run often, except those that read a page of an organization's rows.

    Which plan is good for a page depends on how many rows its organization has. The plan of a prepared statement is made
    for an average one, whose rows it would read and sort: 60 ms of CPU instead of 2 for 20,000 rows. To plan every
    statement for its values instead (plan_cache_mode) costs four times the CPU where a row is found by its key.
    """

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        if isinstance(query, str) and " LIMIT " in query and reads_page(query):
            options["prepare"] = False
        return super().execute(query, params, **options)  # type: ignore[misc] # the stubs leave it out


class DatabaseFeatures(features.DatabaseFeatures):
    max_query_params = MAX_PARAMETERS


class DatabaseOperations(operations.DatabaseOperations):
    def bulk_batch_size(self, fields: Any, objs: Any) -> int:
        """Return how many rows of these fields one INSERT may have."""
        return MAX_PARAMETERS // max(len(fields), 1)


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that knows which context PostgreSQL has. None means that this is not known."""

    features_class = DatabaseFeatures
    ops_class = DatabaseOperations

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_in_database: str | None = None

    def get_connection_params(self) -> dict[str, Any]:
        return {**super().get_connection_params(), "cursor_factory": Cursor}

    def init_connection_state(self) -> None:
        self.context_in_database = None
        super().init_connection_state()

    def is_usable(self) -> bool:
        """Return whether a kept connection still serves. Costs a round trip only if the server has sent something.

        Between two requests it sends nothing, unless it says that it ends the connection, or closes it.
        """
        if self.connection is None or self.connection.closed:
            return False
        return not has_input(self.connection.fileno()) or super().is_usable()

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
        if raw.status != ConnStatus.OK:
            raise OperationalError(raw.get_error_message())
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


def has_input(descriptor: int) -> bool:
    """Return whether there is something to read from the socket, also its end."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
