"""Translates AWS errors into four kinds that the rest of the portal can act on.

AWS's own error texts stop here: no exception, log line, row, page or response contains one. A text may repeat the
credentials of its call (SignatureDoesNotMatch repeats the session token) or the data it sent (an environment), and it
names principals. Everywhere else an error is its str(): action, code, missing permission and request id. summarize_error()
makes it a sentence, and with_advice() adds what to do. ECS's texts about a service (events, stop reasons) are not
errors, and are kept.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

# ThrottlingException is in no model of ECS, so boto3 has no class for it. Errors are recognized by code, not by class.
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/CommonErrors.html
THROTTLED = {"ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequestsException"}
# Before the retry of a throttled read.
THROTTLED_SECONDS = 0.5
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
}
# All errors that boto3 raises, for calls made outside portal/aws: Celery's calls to an SQS broker.
BOTO_ERRORS = (boto.BotoCoreError, boto.ClientError)
# The call was not sent: there was no connection, or no credentials to sign it.
NEVER_SENT = (
    boto.ConnectTimeoutError,
    boto.EndpointConnectionError,
    boto.ProxyConnectionError,
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
)
MISSING = {"ClusterNotFoundException", "ServiceNotFoundException", "ServiceNotActiveException"}
# AWS does not accept the credentials, so no permission is missing.
CREDENTIALS_REFUSED = {"UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch", "NoCredentials"}
# Only parts of a reply that look like names are passed on. Anything else may be text.
CODE = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
REQUEST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
PERMISSION = re.compile(r"not authorized to perform:? ([a-z0-9-]{1,64}:[A-Za-z]{1,128})")

MISSING_ADVICE = "Create it in ECS, or ask staff to correct cluster and stack in Django admin."
CREDENTIALS_ADVICE = "AWS does not accept the portal's credentials. Staff can renew them and check the portal's clock."
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateService.html lists what each code means.
ADVICE = {
    "ClientException": "Check the task definition in ECS: it may be deregistered, or have values that ECS rejects.",
    "InvalidParameterException": (
        "Check in ECS that task definition and service match: containers, network, load balancer, launch type."
    ),
    "LimitExceededException": "A quota of the AWS account is used up. Free capacity, or raise the quota in Service Quotas.",
    "NamespaceNotFoundException": "The service's Service Connect namespace does not exist. Correct it in ECS.",
    "ParamValidationError": "The portal sent a value that this call does not accept. Report it to the portal's developers.",
    "PlatformTaskDefinitionIncompatibilityException": (
        "The service's Fargate platform version is too old for the task definition. Raise it in ECS."
    ),
    "PlatformUnknownException": "The service's Fargate platform version does not exist. Correct it in ECS.",
    "UnknownMember": "Update the portal. Until then, roll this service out with the tool that made its task definition.",
    "UnsupportedFeatureException": "The region or launch type lacks a feature that the service uses. Check it in ECS.",
}
# https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
CLOUDTRAIL = "The account's CloudTrail has AWS's full reason under this request id."


class AwsError(Exception):
    """A failed call. `code` is AWS's error code. CloudTrail and AWS support find the call by `request_id`.

    `why` is a reason that the portal wrote. AWS's text is never stored, so str(), args and logs cannot contain it.
    """

    def __init__(self, code: str, *, action: str, why: str = "", request_id: str | None = None) -> None:
        super().__init__(code)
        self.code, self.action, self.why, self.request_id = code, action, why, request_id

    def __str__(self) -> str:
        notes = [self.why, f"AWS request {self.request_id}" if self.request_id else ""]
        known = "; ".join(note for note in notes if note)
        return f"{self.action}: {self.code}" + (f" ({known})" if known else "")


class AwsUnavailable(AwsError):
    """Throttled, unreachable, timed out, or failed on AWS's side. A later retry may succeed.

    `may_have_happened` is true if a write may have taken effect although no reply came.
    """

    may_have_happened = True


class AwsDenied(AwsError):
    """The credentials do not allow this. `permission` is the missing one, e.g. `ecs:UpdateService`."""

    permission: str

    def __init__(
        self, code: str, *, action: str, why: str = "", request_id: str | None = None, permission: str | None = None
    ) -> None:
        if permission and permission != action:
            why = f"{permission} is missing"
        super().__init__(code, action=action, why=why, request_id=request_id)
        self.permission = permission or action


class AwsMissing(AwsError):
    """The cluster or service does not exist or no longer exists."""


class AwsRefused(AwsError):
    """Any other definite error. Repeating the same call does not help."""


def summarize_error(error: AwsError) -> str:
    """Return one sentence about a failed call, for pages, rows and responses."""
    return f"{error}."


def with_advice(error: AwsError) -> str:
    """Return summarize_error() of a permanently failed call with advice on what to do."""
    if error.code in CREDENTIALS_REFUSED:
        return f"{CREDENTIALS_ADVICE} {summarize_error(error)}"
    if isinstance(error, AwsDenied):
        advice = f"The permission {error.permission} is missing. Staff can add it to the portal's role in AWS."
        return f"{advice} {summarize_error(error)}"
    if isinstance(error, AwsMissing):
        return f"{summarize_error(error)} {MISSING_ADVICE}"
    parts = [ADVICE.get(error.code, ""), summarize_error(error), CLOUDTRAIL if error.request_id else ""]
    return " ".join(part for part in parts if part)


@contextmanager
def translated(action: str) -> Iterator[None]:
    """Translate botocore's errors into ours. `action` is the IAM name, e.g. `ecs:UpdateService`.

    Botocore's error is not chained, because its text would then be in every logged traceback.
    """
    try:
        yield
    except (boto.ClientError, boto.BotoCoreError, ResponseParserError) as error:
        ours = _translate(error, action)
        try:
            raise ours from None
        finally:
            ours.__context__ = None


@contextmanager
def complete(action: str) -> Iterator[None]:
    """Raise AwsUnavailable if a reply lacks a member that the portal needs (a KeyError).

    AWS's models mark few members of a reply as required. A missing one proves nothing, and a retry may return it.
    """
    try:
        yield
    except KeyError as error:
        raise incomplete(str(error.args[0]), action) from error


def need(raw: dict[str, Any], name: str) -> Any:
    """Return a member that the portal needs. Raises KeyError if it is absent or an empty string."""
    if raw[name] == "":
        raise KeyError(name)
    return raw[name]


def incomplete(member: str, action: str) -> AwsUnavailable:
    return AwsUnavailable("IncompleteReply", action=action, why=f"the reply has no {member}")


def retried_once(call: Callable[[], Any], *, renew: Callable[[], None], if_throttled: bool) -> Any:
    """Make a read. Retry it once with new credentials if the old ones had expired, and `if_throttled` after a pause."""
    try:
        return call()
    except boto.ClientError as error:
        code = error.response.get("Error", {}).get("Code")
        if code in EXPIRED:
            renew()
        elif code in THROTTLED and if_throttled:
            time.sleep(THROTTLED_SECONDS)
        else:
            raise
        return call()


def _translate(error: Exception, action: str) -> AwsError:
    if isinstance(error, boto.ClientError):
        return _from_reply(error, action)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return AwsDenied("NoCredentials", action=action, why="the portal has no AWS credentials")
    kind = type(error).__name__
    if isinstance(error, NEVER_SENT):
        return _unavailable(kind, action, may_have_happened=False)
    if isinstance(error, boto.HTTPClientError | boto.ConnectionError | ResponseParserError):
        return _unavailable(kind, action, may_have_happened=True)
    return AwsRefused(kind, action=action)


def _from_reply(error: boto.ClientError, action: str) -> AwsError:
    reply = error.response
    metadata = reply.get("ResponseMetadata", {})
    code = _name(CODE, reply.get("Error", {}).get("Code")) or "Unknown"
    request_id = _name(REQUEST_ID, metadata.get("RequestId"))
    status = int(metadata.get("HTTPStatusCode", 400))
    if error.operation_name == "AssumeRole":
        action = "sts:AssumeRole"
    if code in THROTTLED or code in EXPIRED or status == 429:
        # AWS refused the call before it took effect.
        return _unavailable(code, action, request_id=request_id, may_have_happened=False)
    if status >= 500 or code in {"ServerException", "InternalFailure", "ServiceUnavailable"}:
        return _unavailable(code, action, request_id=request_id, may_have_happened=True)
    if code in DENIED:
        named = PERMISSION.search(str(reply.get("Error", {}).get("Message", "")))
        permission = named[1] if named else None
        return AwsDenied(code, action=action, request_id=request_id, permission=permission)
    kind = AwsMissing if code in MISSING else AwsRefused
    return kind(code, action=action, request_id=request_id)


def _name(form: re.Pattern[str], value: Any) -> str | None:
    return str(value) if form.fullmatch(str(value or "")) else None


def _unavailable(code: str, action: str, *, may_have_happened: bool, request_id: str | None = None) -> AwsUnavailable:
    unavailable = AwsUnavailable(code, action=action, request_id=request_id)
    unavailable.may_have_happened = may_have_happened
    return unavailable
