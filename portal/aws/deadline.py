"""Puts a deadline on an AWS call, whatever its own timeouts and retries."""

from collections.abc import Callable
from typing import TypeVar

from portal.aws.errors import AwsUnavailable
from portal.request_id import request_pool

STEP_SECONDS = 8


Found = TypeVar("Found")


def call_with_deadline(call: Callable[[], Found], permission: str, *, seconds: float = STEP_SECONDS) -> Found:
    """Return the result of `call`, waiting at most `seconds`. Raises AwsUnavailable if AWS takes longer."""
    pool = request_pool(1, "test-connection")
    try:
        return pool.submit(call).result(timeout=seconds)
    except TimeoutError as error:
        why = f"no answer within {seconds:g} seconds"
        raise AwsUnavailable("TimedOut", action=permission, why=why) from error
    finally:
        pool.shutdown(wait=False)
