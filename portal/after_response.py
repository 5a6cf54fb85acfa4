"""Makes the writes that a read causes, such as "this page is being viewed", after the response. Drops one that fails.

Reads therefore never wait for a lock, and work on a database that accepts no changes.
"""

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django.core.signals import request_finished, request_started
from django.db import DatabaseError, connection, transaction

from portal import tenancy

logger = logging.getLogger(__name__)

# The thread takes its next request only afterwards, so do not wait for a row that another transaction has locked.
LOCK_MILLISECONDS = 100

Write = Callable[[], object]
_pending: ContextVar[list[Write] | None] = ContextVar("pending", default=None)


def write_after_response(write: Write) -> None:
    """Call `write` in a transaction of its own after this thread's response, or immediately without a request.

    It works in the present context of organizations, which ends with the response.
    """
    pending = _pending.get()
    if pending is None:
        return make(write)
    context = tenancy.current()

    def write_inside() -> None:
        with tenancy.inside(context):
            write()

    pending.append(write_inside)


def make(write: Write) -> None:
    try:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}")
            write()
    except DatabaseError as error:
        logger.info("write after the response dropped: %s", type(error.__cause__ or error).__name__)


def begin(**_: Any) -> None:
    _pending.set([])


def finish(**_: Any) -> None:
    pending = _pending.get()
    _pending.set(None)
    for write in pending or ():
        make(write)


request_started.connect(begin, dispatch_uid="portal.after_response.begin")
request_finished.connect(finish, dispatch_uid="portal.after_response.finish")
