"""AWS's errors, translated at this edge into four kinds that the rest of the portal can decide on."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

# ThrottlingException is in no model of ECS, so boto3 has no class for it: errors are told apart by code, never by class.
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/CommonErrors.html
THROTTLED = {"ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequestsException"}
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
}
# The call was not sent: no connection, or no credentials to sign it with just now.
NEVER_SENT = (
    boto.ConnectTimeoutError,
    boto.EndpointConnectionError,
    boto.ProxyConnectionError,
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
)
MISSING = {"ClusterNotFoundException", "ServiceNotFoundException", "ServiceNotActiveException"}


class AwsError(Exception):
    """What AWS answered, in words. `code` is AWS's own, `request_id` what AWS support asks for."""

    def __init__(self, code: str, message: str, *, action: str, request_id: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.action, self.request_id = code, message, action, request_id

    def __str__(self) -> str:
        return f"{self.action}: {self.code}: {self.message}"


class AwsUnavailable(AwsError):
    """Throttled, unreachable, timed out or failed on AWS's side: asking again later may work.

    `may_have_happened` is true when a write may have taken effect although its reply never came.
    """

    may_have_happened = True


class AwsDenied(AwsError):
    """The credentials may not do this. `permission` names the missing one, e.g. `ecs:UpdateService`."""

    @property
    def permission(self) -> str:
        named = re.search(r"not authorized to perform:? ([a-z0-9-]+:[A-Za-z]+)", self.message)
        return named.group(1) if named else self.action


class AwsMissing(AwsError):
    """The cluster or service does not exist, or no longer."""


class AwsRefused(AwsError):
    """Any other definite refusal: repeating the same call will not help."""


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Raise our error for each of botocore's. `action` is the IAM name, e.g. `ecs:UpdateService`."""
    try:
        yield
    except boto.ClientError as error:
        raise _from_reply(error, action) from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
        raise AwsDenied("NoCredentials", "The portal has no AWS credentials.", action=action) from error
    except NEVER_SENT as error:
        raise _unreachable(error, action, may_have_happened=False) from error
    except (boto.HTTPClientError, boto.ConnectionError, ResponseParserError) as error:
        raise _unreachable(error, action, may_have_happened=True) from error
    except boto.BotoCoreError as error:
        raise AwsRefused(type(error).__name__, str(error), action=action) from error


def retried_after_expiry(call: Callable[[], Any], *, renew: Callable[[], None]) -> Any:
    """Make a read again, once, with new credentials when the old ones had expired."""
    try:
        return call()
    except boto.ClientError as error:
        if error.response.get("Error", {}).get("Code") not in EXPIRED:
            raise
        renew()
        return call()


def _from_reply(error: boto.ClientError, action: str) -> AwsError:
    reply = error.response
    code = str(reply.get("Error", {}).get("Code", "Unknown"))
    message = str(reply.get("Error", {}).get("Message", "")) or "AWS gave no reason."
    if error.operation_name == "AssumeRole":
        action = "sts:AssumeRole"
    metadata = reply.get("ResponseMetadata", {})
    request_id = metadata.get("RequestId")
    status = int(metadata.get("HTTPStatusCode", 400))
    if code in THROTTLED or code in EXPIRED or status == 429:
        unavailable = AwsUnavailable(code, message, action=action, request_id=request_id)
        unavailable.may_have_happened = False  # refused at the door
        return unavailable
    if status >= 500 or code in {"ServerException", "InternalFailure", "ServiceUnavailable"}:
        return AwsUnavailable(code, message, action=action, request_id=request_id)
    kind = AwsDenied if code in DENIED else AwsMissing if code in MISSING else AwsRefused
    return kind(code, message, action=action, request_id=request_id)


def _unreachable(error: Exception, action: str, *, may_have_happened: bool) -> AwsUnavailable:
    # botocore's text carries the endpoint's address; people get the kind alone.
    kind = type(error).__name__
    unavailable = AwsUnavailable(kind, f"AWS did not answer ({kind}).", action=action)
    unavailable.may_have_happened = may_have_happened
    return unavailable
