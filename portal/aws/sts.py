"""AWS STS: identifies the portal's own credentials."""

from portal.aws.credentials import AwsTarget, client
from portal.aws.errors import AwsError, translated

ANY_REGION = "us-east-1"


def caller_account(target: AwsTarget) -> str:
    """Return the account id of the target's credentials. One call, after assuming the role. Raises AwsError."""
    with translated("sts:GetCallerIdentity"):
        return str(client(target, "sts").get_caller_identity()["Account"])


def caller_is_known() -> bool:
    """Return whether AWS answers and accepts the portal's own credentials. One call."""
    try:
        caller_account(AwsTarget(region=ANY_REGION))
    except AwsError:
        return False
    return True
