"""Says which regions answer, and whether AWS accepts the portal's own credentials, for /health.

A region is asked at most once in FRESH_SECONDS. If it answers too late for one caller, the next one gets the answer.
"""

import os
import time
from collections.abc import Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

from portal.aws import silence
from portal.aws.bulkhead import begin_shared
from portal.aws.credentials import AwsTarget
from portal.aws.errors import AwsError, AwsUnavailable
from portal.aws.sts import ANY_REGION, caller_account

FRESH_SECONDS = 15


@dataclass(frozen=True)
class Reachability:
    """`is_accepted`: a region answered and accepts the credentials.

    `silent`: `{"region", "account"}`, with the last digits of an account; None for the portal's own.
    """

    is_accepted: bool
    silent: list[dict[str, str | None]]


# By region: until when the answer counts, on the monotonic clock, and whether the region accepts the credentials.
_answers: dict[str, tuple[float, bool]] = {}


def check_regions(regions: Iterable[str], *, until: float) -> dict[str, bool | None]:
    """Return for each region, and the portal's own, whether it accepts the credentials. None: it does not answer.

    `until` is on the monotonic clock. Makes no database query.
    """
    asked = {*regions, get_home_region()}
    running = [future for region in asked - find_answers(asked).keys() if (future := begin(region))]
    wait(running, timeout=max(0.0, until - time.monotonic()))
    return dict.fromkeys(sorted(asked)) | find_answers(asked)


def summarize(answers: dict[str, bool | None], noted: Iterable[tuple[str, str]]) -> Reachability:
    """Add the accounts and regions that did not answer pages (silence.read)."""
    places = {(silence.OWN_ACCOUNT, region) for region, is_accepted in answers.items() if is_accepted is None}
    silent = [
        {"region": region, "account": None if account == silence.OWN_ACCOUNT else f"...{account[-4:]}"}
        for account, region in sorted(places | set(noted))
    ]
    return Reachability(any(answers.values()), silent)


def get_home_region() -> str:
    """Return the portal's own region, which is asked even if no organization uses it."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ANY_REGION


def find_answers(regions: Iterable[str]) -> dict[str, bool]:
    now = time.monotonic()
    return {region: _answers[region][1] for region in regions if region in _answers and _answers[region][0] > now}


def begin(region: str) -> "Future[Any] | None":
    """Begin to ask a region. None: it did not answer in the last seconds."""
    try:
        return begin_shared(AwsTarget(region), "sts:GetCallerIdentity", "health", partial(ask, region))
    except AwsUnavailable:
        return None


def ask(region: str) -> None:
    """Ask a region and keep the answer. *Raises* AwsUnavailable if it does not answer."""
    try:
        caller_account(AwsTarget(region))
    except AwsUnavailable:
        raise
    except AwsError:
        is_accepted = False
    else:
        is_accepted = True
    _answers[region] = (time.monotonic() + FRESH_SECONDS, is_accepted)


def forget_answers() -> None:
    """Forget what the regions answered, so that they are asked again."""
    _answers.clear()
