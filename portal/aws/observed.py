"""Counts and logs each call to AWS, and puts the id of the portal's request into its User-Agent.

CloudTrail records the User-Agent, so the portal's request id finds the call there. The log line has AWS's own request id.
Count and log line contain no parameter of the call and no text of AWS (see errors.py).
"""

import logging
from functools import partial
from typing import Any

from portal.aws.errors import CODE, REQUEST_ID, THROTTLED
from portal.monitoring.counters import AWS_CALLS, count
from portal.request_id import NO_REQUEST, request_id_var

OWN_ACCOUNT = "own"

logger = logging.getLogger(__name__)


def observe(client: Any, account: str, region: str, *, writes: bool) -> None:
    """Count and log each call of a new client. `account`: its id, or OWN_ACCOUNT for the portal's own credentials.

    botocore emits `response-received` for each attempt, so botocore's own retries are counted and logged too.
    """
    events, prefix = client.meta.events, client.meta.service_model.signing_name
    level = logging.INFO if writes else logging.DEBUG
    # After botocore's own handler, which writes the User-Agent of each attempt.
    events.register_last("request-created", name_request)
    events.register("response-received", partial(note_attempt, prefix, account, region, level))


def name_request(request: Any, **_: Any) -> None:
    """Add the request id to the User-Agent, which is not part of the signature."""
    if request_id_var.get() != NO_REQUEST:
        agent = f"{request.headers['User-Agent']} md/request#{request_id_var.get()}"
        request.headers.replace_header("User-Agent", agent)


def note_attempt(
    prefix: str,
    account: str,
    region: str,
    level: int,
    *,
    event_name: str,
    parsed_response: dict[str, Any] | None,
    exception: Exception | None,
    **_: Any,
) -> None:
    """Count and log one attempt: a write at INFO, a read at DEBUG. The caller also logs a failed call."""
    reply = parsed_response or {}
    metadata = reply.get("ResponseMetadata", {})
    code = str(reply.get("Error", {}).get("Code", "")) if not exception else type(exception).__name__
    code = code if CODE.fullmatch(code) else ""
    result = judge_attempt(code, int(metadata.get("HTTPStatusCode", 0)))
    count(AWS_CALLS, account, region, result)
    aws_request = str(metadata.get("RequestId", ""))
    fields = {
        "action": f"{prefix}:{event_name.rpartition('.')[2]}",
        "account": account,
        "region": region,
        "result": result,
        "code": code,
        "aws_request_id": aws_request if REQUEST_ID.fullmatch(aws_request) else "",
    }
    known = {name: value for name, value in fields.items() if value}
    text = " ".join(f"{name}={value}" for name, value in known.items())
    logger.log(level, "AWS call %s", text, extra={"fields": known})


def judge_attempt(code: str, status: int) -> str:
    """Return the result of an attempt: ok, throttled, refused, failed (on AWS's side) or no_answer (status 0)."""
    if code in THROTTLED or status == 429:
        return "throttled"
    if not status:
        return "no_answer"
    if status >= 500:
        return "failed"
    return "refused" if status >= 400 else "ok"
