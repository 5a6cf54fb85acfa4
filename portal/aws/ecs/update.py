"""UpdateService, the one call that must never be sent twice."""

import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from portal.aws.calls import do_nothing
from portal.aws.credentials import AwsTarget
from portal.aws.ecs.calls import open_writer
from portal.aws.ecs.service import Service, parse_service
from portal.aws.errors import AwsUnavailable, complete, translated
from portal.aws.permissions import Scope, Use

# Signing a call takes milliseconds. A lease outlasts this time and the call's own time-outs (portal/leases.py).
SENT_WITHIN_SECONDS = 5.0
_send_until: ContextVar[float] = ContextVar("send_until", default=math.inf)


class SentTooLate(Exception):
    """A call was about to be sent too long after its lease was renewed."""


def update_service(
    target: AwsTarget,
    cluster: str,
    service: str,
    *,
    task_definition: str,
    force_new_deployment: bool,
    before_call: Callable[[], None] = do_nothing,
) -> Service:
    """Call UpdateService exactly once. ECS has no idempotency token for it, so callers must not retry it blindly.

    `before_call` runs after the role is assumed and directly before the call; it may renew a lease.
    Raises AwsUnavailable. Its `may_have_happened` is true if a deployment may have started anyway. It is false if this
    process was frozen between `before_call` and the sending: another worker may have called meanwhile.
    """
    action = "ecs:UpdateService"
    writer = open_writer(target, action, Scope(Use.SERVICE, cluster, service))
    writer.meta.events.register("before-send.ecs.UpdateService", _refuse_late_sending, unique_id="late")
    before_call()
    token = _send_until.set(time.monotonic() + SENT_WITHIN_SECONDS)
    try:
        with translated(action):
            reply = writer.update_service(
                cluster=cluster,
                service=service,
                taskDefinition=task_definition,
                forceNewDeployment=force_new_deployment,
            )
    except SentTooLate as error:
        late = AwsUnavailable("NotSent", action=action, why="the portal's process stood still before it was sent")
        late.may_have_happened = False
        raise late from error
    finally:
        _send_until.reset(token)
    with complete(action):
        return parse_service(reply["service"])


def _refuse_late_sending(**_: Any) -> None:
    """Raise SentTooLate if the call's time has passed. A botocore handler that runs right before a request is sent."""
    if time.monotonic() > _send_until.get():
        raise SentTooLate
