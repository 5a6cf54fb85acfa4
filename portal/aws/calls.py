"""Makes a read of any AWS service, with one retry. ECS and ECR share it."""

from functools import partial
from typing import Any

from portal.aws.credentials import AwsTarget, client, drop_session, has_short_timeouts
from portal.aws.errors import retried_once, translated
from portal.aws.permissions import Scope


def do_nothing() -> None:
    pass


def read(
    target: AwsTarget, service: str, action: str, method: str, *, scope: Scope, parameters: dict[str, Any]
) -> dict[str, Any]:
    """Make a read, and retry it once with a newly assumed role if the credentials had expired. *Raises* AwsError.

    `service` and `method` are boto3's names, `action` is IAM's.
    """

    def call() -> dict[str, Any]:
        reply: dict[str, Any] = getattr(client(target, service, scope=scope), method)(**parameters)
        return reply

    with translated(action):
        reply: dict[str, Any] = retried_once(
            call, renew=partial(drop_session, target), if_throttled=has_short_timeouts()
        )
    return reply
