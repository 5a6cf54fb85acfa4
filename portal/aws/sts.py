"""AWS STS: who the portal is, there."""

from portal.aws.credentials import AwsTarget, client
from portal.aws.errors import AwsError, translated

ANY_REGION = "us-east-1"


def caller_account(target: AwsTarget) -> str:
    """The account that the target's credentials belong to. One call; assumes the role first. Raises AwsError."""
    with translated("sts:GetCallerIdentity"):
        return str(client(target, "sts").get_caller_identity()["Account"])


def caller_is_known() -> bool:
    """Whether AWS answers and knows the portal's own credentials. One call."""
    try:
        caller_account(AwsTarget(region=ANY_REGION))
    except AwsError:
        return False
    return True
