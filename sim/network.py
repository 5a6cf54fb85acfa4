"""The way between the portal's boto3 clients and the local AWS of this process, with everything that can happen on it."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import urlsplit

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from werkzeug.http import http_date

from portal.sandbox.records import ServiceDeployment, ServiceKey
from portal.sandbox.server import Sandbox
from sim.clock import CLOCK, ENDPOINT
from sim.scheduler import Scheduler, current

# Virtual seconds that a request and a reply are on the way.
LATENCY = (0.005, 0.25)
READ_SECONDS, WRITE_SECONDS = 5, 10  # the time-outs of the portal's clients
WRITES = (
    "UpdateService",
    "RegisterTaskDefinition",
    "StopServiceDeployment",
    "ContinueServiceDeployment",
    "CreateService",
    "DeleteService",
)

Json = dict[str, Any]


@dataclass
class Call:
    """One write by the portal that reached ECS, and what it worked on when it sent it."""

    subject: Any
    action: str
    params: Json
    sent_at: float
    at: float  # of the effect
    error: str | None = None
    started: str | None = None  # ARN of the service deployment that it started
    has_effect: bool = False


@dataclass
class Disturbance:
    """What happens to the next `times` calls of these actions until `ends_at`."""

    kind: str
    actions: tuple[str, ...]
    times: int
    ends_at: float
    seconds: float = 0.0
    variant: int = 0  # decides how an outsider deploys beside the call


@dataclass
class Network:
    sandbox: Sandbox
    scheduler: Scheduler
    chance: Random
    calls: list[Call] = field(default_factory=list)
    disturbances: list[Disturbance] = field(default_factory=list)
    standing: Disturbance | None = None  # happens to each call of a rollout
    records: dict[str, ServiceDeployment] = field(default_factory=dict)  # by ARN; ECS deletes those of deleted services
    done: set[tuple[Any, ...]] = field(default_factory=set)  # what may take effect once
    count: int = 0
    # Deploys a service, by its name, as an outsider. The flag: with another task definition.
    outsider: Callable[[str, bool], None] = lambda _service, _other: None

    def send(self, _session: Any, request: Any) -> AWSResponse:
        """Carry one request of botocore and its reply. A step before the effect, and one after it."""
        self.count += 1
        environ = as_environ(request)
        action = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        task = current()
        if task is None or not action:  # AssumeRole: botocore holds a lock meanwhile
            return self.exchange(request, environ, None, CLOCK.seconds)
        subject = task.subject
        disturbance = self.disturb(action, subject)
        kind, sent_at = disturbance.kind if disturbance else "", CLOCK.seconds
        timeout = WRITE_SECONDS if action in WRITES else READ_SECONDS
        if kind == "unreachable":
            raise EndpointConnectionError(endpoint_url=request.url)
        task.pause(self.chance.uniform(*LATENCY), action)
        if kind == "request_lost":
            task.pause(timeout, f"{action} unanswered")
            raise ReadTimeoutError(endpoint_url=request.url)
        if kind == "late" and disturbance:
            at = CLOCK.seconds + disturbance.seconds
            self.scheduler.at(at, lambda: self.take_effect(as_environ(request), action, subject, sent_at))
            task.pause(timeout, f"{action} unanswered")
            raise ReadTimeoutError(endpoint_url=request.url)
        if kind in ERRORS:
            self.sandbox.faults.add({**ERRORS[kind], "action": action, "times": 1})
        if kind in ("undercut", "forestalled") and disturbance:
            self.outsider(named_service(request), kind == "undercut" and disturbance.variant % 2 == 1)
            task.pause(self.chance.uniform(*LATENCY), action)  # not in the same millisecond
        reply = self.exchange(request, environ, subject, sent_at)
        if kind == "overtaken" and disturbance:
            service, is_other = named_service(request), disturbance.variant % 2 == 1
            moment = CLOCK.seconds + 0.5 + disturbance.variant % 5
            self.scheduler.at(moment, lambda: self.outsider(service, is_other))
        task.pause(self.chance.uniform(*LATENCY) + (timeout if kind == "reply_times_out" else 0), f"{action} done")
        if kind in ("reply_lost", "overtaken", "undercut"):
            raise ConnectionClosedError(endpoint_url=request.url)
        if kind == "reply_times_out":
            raise ReadTimeoutError(endpoint_url=request.url)
        if kind == "error_after":
            return response(request, 500, [], json.dumps({"__type": "ServerException", "message": ""}).encode())
        return reply

    def disturb(self, action: str, subject: Any) -> Disturbance | None:
        """Return what happens to this call, and count it."""
        if self.standing and action in self.standing.actions and isinstance(subject, int):
            return self.standing
        for each in list(self.disturbances):
            if each.ends_at < CLOCK.seconds or each.times <= 0:
                self.disturbances.remove(each)
            elif action in each.actions and (each.kind != "forestalled" or isinstance(subject, int)):
                each.times -= 1
                return each
        return None

    def exchange(self, request: Any, environ: Json, subject: Any, sent_at: float) -> AWSResponse:
        action = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        status, headers, body = self.take_effect(environ, action, subject, sent_at)
        headers = [*headers, ("Date", http_date(CLOCK.seconds))]
        return response(request, status, headers, body)

    def take_effect(
        self, environ: Json, action: str, subject: Any, sent_at: float
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Let the local AWS answer, and record a write with what it worked on."""
        before = self.sandbox.ledger.sequence
        answer = call_app(self.sandbox, environ)
        if action in WRITES and self.sandbox.ledger.sequence > before:
            entry = self.sandbox.ledger.entries[-1]
            if entry["service_deployment_arn"]:
                key = ServiceKey(entry["account"], entry["region"], entry["cluster"], entry["service"])
                record = self.sandbox.engine.services[key].service_deployments[0]
                self.records[record.arn] = record
            self.calls.append(
                Call(
                    subject,
                    action,
                    entry["parameters"],
                    sent_at,
                    CLOCK.seconds,
                    error=entry["error"],
                    started=entry["service_deployment_arn"],
                    has_effect=entry["effect"],
                )
            )
            self.check_once(self.calls[-1])
        return answer

    def check_once(self, call: Call) -> None:
        """End the world if what this call did has been done before."""
        once: tuple[Any, ...] = ()
        if call.action == "UpdateService" and isinstance(call.subject, int) and call.started:
            once = ("the call of rollout", call.subject)
        elif call.action == "CreateService" and call.started:
            once = ("the creation of", call.params.get("serviceName"))
        elif call.action == "ContinueServiceDeployment" and call.has_effect:
            once = ("the decision of rollout", call.subject, "at", call.params.get("hookId"))
        if once and once in self.done:
            self.scheduler.broken = f"doubled: {' '.join(map(str, once))} took effect twice"
        self.done.add(once)


# Disturbances that the local AWS answers with an error of its own.
ERRORS: dict[str, Json] = {
    "throttled": {"kind": "throttle"},
    "denied": {"kind": "access_denied"},
    "expired": {"kind": "expired_token"},
    "server_error": {"kind": "server_error"},
    "refused": {"kind": "error", "code": "InvalidParameterException", "message": "Bad subnet."},
}


def call_app(app: Callable[..., Any], environ: Json) -> tuple[int, list[tuple[str, str]], bytes]:
    captured: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], _error: Any = None) -> None:
        captured[:] = [int(status.split()[0]), headers]

    body = b"".join(app(environ, start_response))
    return captured[0], captured[1], body


def response(request: Any, status: int, headers: list[tuple[str, str]], body: bytes) -> AWSResponse:
    answer = AWSResponse(request.url, status, dict(headers), None)
    answer._content = body
    return answer


def as_environ(request: Any) -> Json:
    """Return the request of botocore as a WSGI server would hand it to the local AWS."""
    headers = {text(name): text(value) for name, value in request.headers.items()}
    body = request.body or b""
    return build_environ(request.method, request.url, headers, body.encode() if isinstance(body, str) else bytes(body))


def build_environ(method: str, url: str, headers: dict[str, str], body: bytes) -> Json:
    parts = urlsplit(url)
    environ: Json = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": parts.path or "/",
        "QUERY_STRING": parts.query,
        "SERVER_NAME": parts.hostname or "",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": parts.netloc,
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    return environ


def named_service(request: Any) -> str:
    """Return the name of the service that an UpdateService or DescribeServices call is about."""
    params = json.loads(request.body)
    return str(params["service"] if "service" in params else params["services"][0])


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def call_ecs(sandbox: Sandbox, access_key: str, action: str, params: Json, *, region: str) -> Json:
    """Call ECS as an outsider. Returns the reply, whether or not it is an error."""
    scope = f"AWS4-HMAC-SHA256 Credential={access_key}/20310303/{region}/ecs/aws4_request"
    headers = {
        "Authorization": scope,
        "X-Amz-Target": f"AmazonEC2ContainerServiceV20141113.{action}",
        "Content-Type": "application/x-amz-json-1.1",
    }
    _, _, body = call_app(sandbox, build_environ("POST", ENDPOINT, headers, json.dumps(params).encode()))
    return dict(json.loads(body))
