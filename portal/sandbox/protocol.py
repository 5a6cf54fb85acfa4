"""AWS's wire formats as far as the local AWS needs them: parses requests, builds replies and error replies.

JSON 1.1 (ECS, ECR, CloudWatch Logs) names its action in `X-Amz-Target`, the query protocol (STS) in the form field
`Action`, and RPC v2 in the path (https://smithy.io/2.0/additional-specs/protocols/smithy-rpc-v2.html).
"""

import io
import json
import re
import uuid
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from portal.sandbox.errors import AwsError
from portal.sandbox.partitions import partition

Environ = dict[str, Any]

STS_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"

READ_ACTION = re.compile(
    r"^(Describe|List|Get|BatchGet|BatchCheck|Filter|Search|Discover|StartQuery|StopQuery|StartLiveTail|Test|Decode)"
)
# Writes of telemetry and sessions change no resource, so the ledger omits them.
NOT_IN_LEDGER = frozenset({"AssumeRole", "PutLogEvents", "PutMetricData", "CreateLogStream"})


@dataclass
class ApiRequest:
    """One AWS API call. `account` and `principal` are set after the credentials are recognized."""

    service: str
    action: str
    region: str
    access_key: str
    protocol: str
    params: dict[str, Any]
    account: str = ""
    principal: str = ""
    cluster: str | None = None
    ecs_service: str | None = None
    user_agent: str = ""
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def is_read(self) -> bool:
        return bool(READ_ACTION.match(self.action))

    @property
    def belongs_in_ledger(self) -> bool:
        return not self.is_read and self.action not in NOT_IN_LEDGER

    @property
    def resource_arn(self) -> str:
        """Return the resource as an AccessDenied message names it."""
        prefix = f"arn:{partition(self.region)}:{self.service}:{self.region}:{self.account}"
        if self.service == "sts":
            return str(self.params.get("RoleArn") or "*")
        if self.service == "ecr" and self.params.get("repositoryName"):
            return f"{prefix}:repository/{self.params['repositoryName']}"
        if self.cluster and self.ecs_service:
            return f"{prefix}:service/{self.cluster}/{self.ecs_service}"
        if self.cluster:
            return f"{prefix}:cluster/{self.cluster}"
        return "*"


@dataclass
class Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


def parse_request(environ: Environ) -> ApiRequest:
    """Parse an API call from the WSGI environ, and put the body back for the next reader."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length) if length else b""
    environ["wsgi.input"] = io.BytesIO(body)
    access_key, region, service = credential_scope(environ.get("HTTP_AUTHORIZATION", ""))
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    operation = re.search(r"/operation/(\w+)$", environ.get("PATH_INFO", ""))
    params: dict[str, Any] = {}
    if target:
        protocol, action = "json", target.rsplit(".", 1)[-1]
        params = parse_json(body)
    elif operation:
        protocol, action = "rpc", operation.group(1)
    else:
        params = dict(parse_qsl(body.decode("utf-8", "replace")))
        protocol, action = "query", str(params.get("Action", ""))
    request = ApiRequest(service, action, region, access_key, protocol, params)
    request.user_agent = environ.get("HTTP_USER_AGENT", "")
    if service == "ecs":
        request.cluster, request.ecs_service = named_resources(params)
    return request


def replace_body(environ: Environ, params: dict[str, Any]) -> None:
    """Replace the call's JSON parameters for the next reader."""
    body = json.dumps(params).encode()
    environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))


def credential_scope(authorization: str) -> tuple[str, str, str]:
    """Return access key, region and service of a SigV4 header; only the default region for an unsigned call."""
    match = re.search(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/aws4_request", authorization)
    return (match[1], match[2], match[3]) if match else ("", "us-east-1", "")


def parse_json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def named_resources(params: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the names of the cluster and service of an ECS call, from any of its fields."""
    arn = params.get("serviceDeploymentArn") or next(iter(params.get("serviceDeploymentArns") or []), None)
    if isinstance(arn, str) and arn.count("/") == 3:
        return arn.split("/")[1], arn.split("/")[2]
    service = params.get("service") or params.get("serviceName")
    cluster = params.get("cluster") or params.get("clusterName")
    names = params.get("services")
    if service is None and isinstance(names, list) and len(names) == 1:
        service = names[0]
    if cluster is None and service is not None:
        cluster = "default"
    return short_name(cluster), short_name(service)


def short_name(value: Any) -> str | None:
    """Return a resource's name, given its name or ARN."""
    return str(value).rsplit("/", 1)[-1] if value else None


def json_reply(result: dict[str, Any], *, request_id: str) -> Reply:
    headers = [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-RequestId", request_id)]
    return Reply(200, headers, json.dumps(result).encode())


def xml_reply(action: str, result: str, *, request_id: str) -> Reply:
    """Return a reply of the query protocol. `result` is the XML inside `<ActionResult>`."""
    body = (
        f'<{action}Response xmlns="{STS_NAMESPACE}"><{action}Result>{result}</{action}Result>'
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
    )
    return Reply(200, [("Content-Type", "text/xml"), ("x-amzn-RequestId", request_id)], body.encode())


def error_reply(error: AwsError, request: ApiRequest) -> Reply:
    """Return an error reply in the protocol of the request."""
    if request.protocol == "query":
        kind = "Sender" if error.status < 500 else "Receiver"
        body = (
            f'<ErrorResponse xmlns="{STS_NAMESPACE}"><Error><Type>{kind}</Type><Code>{escape(error.code)}</Code>'
            f"<Message>{escape(error.message)}</Message></Error><RequestId>{request.request_id}</RequestId></ErrorResponse>"
        )
        return Reply(
            error.status, [("Content-Type", "text/xml"), ("x-amzn-RequestId", request.request_id)], body.encode()
        )
    headers = [
        ("Content-Type", "application/x-amz-json-1.1"),
        ("x-amzn-RequestId", request.request_id),
        ("x-amzn-ErrorType", error.code),
    ]
    document = {"__type": error.code, "message": error.message}
    return Reply(error.status, headers, json.dumps(document).encode())
