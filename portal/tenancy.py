"""The context of row-level security: the organizations whose rows the work in progress may read and write.

PostgreSQL itself applies it to every tenant table (docs/security.md), so a query that forgets its organization finds no
row of another one. Without a context there are no rows. A context begins in one of these ways:

- a request: the statement that reads the session enters the person's organizations (portal/accounts/person.py)
- Django admin: `enter_all_organizations`, for staff only (portal/access.py)
- the engine: `organizations` of one row, from a function that returns its organization (leases.find_organization)
- commands, gauges, scheduled jobs: `all_organizations`, or `organizations` of one row

The context is text: an array of ids, or ALL. portal/database/base.py gives it to PostgreSQL before the next statement.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from django.db import DatabaseError, connections
from psycopg import Error

NOTHING = "{}"
ALL = "*"

_context: ContextVar[str] = ContextVar("organizations", default=NOTHING)


def current() -> str:
    """Return the present context."""
    return _context.get()


def context_of(ids: Iterable[UUID]) -> str:
    """Return the context of these organizations."""
    return "{" + ",".join(str(each) for each in ids) + "}"


@contextmanager
def organizations(*ids: UUID) -> Iterator[None]:
    """Work inside these organizations."""
    yield from _inside(context_of(ids))


@contextmanager
def all_organizations(why: str) -> Iterator[None]:
    """Work inside all organizations. `why` is for the reader of the code."""
    yield from _inside(ALL)


@contextmanager
def inside(context: str) -> Iterator[None]:
    """Work inside a context that `current` returned earlier, or in NOTHING, as a new process does."""
    yield from _inside(context)


def _inside(context: str) -> Iterator[None]:
    token = _context.set(context)
    try:
        yield
    finally:
        _context.reset(token)


def enter_all_organizations() -> None:
    """Work inside all organizations for the rest of the request."""
    _context.set(ALL)


def enter_also(organization_id: UUID) -> None:
    """Work inside this organization too for the rest of the request."""
    if current() != ALL:
        others = [each for each in current().strip("{}").split(",") if each]
        _context.set("{" + ",".join([*others, str(organization_id)]) + "}")


def enter(context: str, *, connection: Any = None) -> None:
    """Make this the context for the rest of the request.

    `connection`: one whose last statement has set the context in PostgreSQL.
    """
    _context.set(context)
    if connection is not None:
        connection.context_in_database = context


def leave(**_: Any) -> None:
    """End the context, and the one that open connections of this thread still have in PostgreSQL.

    Runs when a request has been answered and its stream closed, and after each task and job, also after an error.
    """
    _context.set(NOTHING)
    connection: Any
    for connection in connections.all(initialized_only=True):
        try:
            is_ended = connection.set_context()
        except (DatabaseError, Error):
            is_ended = False
        if not is_ended:
            connection.close()
