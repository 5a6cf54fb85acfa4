"""AWS STS: identifies the portal's own credentials."""

from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any

from botocore.exceptions import ClientError

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


def read_clock(region: str) -> datetime:
    """Return AWS's time, to the second, from the header of a reply. AWS gives it with a refusal too. *Raises* AwsError."""
    with translated("sts:GetCallerIdentity"), complete("sts:GetCallerIdentity"):
        try:
            reply = live_client(AwsTarget(region), "sts").get_caller_identity()
        except ClientError as error:
            reply = error.response
        return parsedate_to_datetime(need(reply["ResponseMetadata"]["HTTPHeaders"], "date"))


def own_arn(region: str) -> str:
    """Return the ARN of the portal's own user, or of the session of its role. *Costs* one call. *Raises* AwsError."""
    reply = _get_caller(AwsTarget(region))
    with complete("sts:GetCallerIdentity"):
        return str(need(reply, "Arn"))


def find_principal(arn: str) -> str:
    """Return the ARN of the role of a session, as a trust policy names it. Other ARNs stay.

    The session's ARN leaves out the role's path, so the result is wrong for a role that has one:
    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html

    >>> find_principal("arn:aws:sts::111111111111:assumed-role/portal/i-0a1b")
    'arn:aws:iam::111111111111:role/portal'
    """
    place, _, rest = arn.partition(":assumed-role/")
    return f"{place.replace(':sts:', ':iam:')}:role/{rest.partition('/')[0]}" if rest else arn


def _get_caller(target: AwsTarget) -> dict[str, Any]:
    with translated("sts:GetCallerIdentity"):
        reply: dict[str, Any] = client(target, "sts").get_caller_identity()
    return reply
