"""AWS STS: identifies the portal's own credentials."""

from functools import cache
from typing import Any

from portal.aws.credentials import AwsTarget, client, live_client
from portal.aws.errors import complete, need, translated

ANY_REGION = "us-east-1"


def caller_account(target: AwsTarget) -> str:
    """Return the account id of the target's credentials. One call, after assuming the role. Raises AwsError."""
    reply = _get_caller(target)
    with complete("sts:GetCallerIdentity"):
        return str(need(reply, "Account"))


@cache
def own_account(region: str) -> str:
    """Return the account of the portal's own credentials. *Costs* one call per process. *Raises* AwsError."""
    with translated("sts:GetCallerIdentity"):
        reply: dict[str, Any] = live_client(AwsTarget(region), "sts").get_caller_identity()
    with complete("sts:GetCallerIdentity"):
        return str(need(reply, "Account"))


def _get_caller(target: AwsTarget) -> dict[str, Any]:
    with translated("sts:GetCallerIdentity"):
        reply: dict[str, Any] = client(target, "sts").get_caller_identity()
    return reply
