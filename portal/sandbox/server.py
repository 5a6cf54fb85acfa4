"""The AWS API as a WSGI application: faults, throttling, the engine's ECS actions, and moto for the rest.

One lock serializes all calls because they share one state. Delays and hanging replies wait outside the lock.
"""

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from portal.sandbox import moto_state
from portal.sandbox.clock import Clock
from portal.sandbox.ecr_api import EcrApi
from portal.sandbox.ecs_api import EcsApi
from portal.sandbox.engine import Engine
from portal.sandbox.errors import AwsError
from portal.sandbox.faults import Faults
from portal.sandbox.ledger import Ledger
from portal.sandbox.logs_api import LogsApi
from portal.sandbox.metrics_api import MetricsApi
from portal.sandbox.platform_switches import Switches
from portal.sandbox.protocol import ApiRequest, Environ, Reply, error_reply, json_reply, parse_request
from portal.sandbox.records import ServiceKey
from portal.sandbox.snapshot import Snapshot
from portal.sandbox.sts import Identity
from portal.sandbox.throttling import Throttling
from portal.sandbox.webhook_inbox import WebhookInboxes

logger = logging.getLogger(__name__)

SAVE_MOVEMENT_EVERY_SECONDS = 1.0

StartResponse = Callable[..., Any]


class ConnectionDroppedError(ConnectionAbortedError):
    """Ends the handling of a call whose connection was closed on purpose. werkzeug does not log it."""


class Sandbox:
    """The whole local AWS. Without a `data_dir`, its state is in memory only."""

    def __init__(self, *, data_dir: Path | None = None) -> None:
        self.lock = threading.RLock()
        self.clock = Clock()
        self.faults = Faults()
        self.identity = Identity()
        self.throttling = Throttling()
        self.platform = Switches()
        self.webhook_inboxes = WebhookInboxes()
        self.engine = Engine(self.clock.now, self.faults.for_rollout)
        self.ecs = EcsApi(self.engine)
        self.ecr = EcrApi()
        self.logs = LogsApi(self.engine)
        self.metrics = MetricsApi(self.engine)
        self.own_actions = {"ecs": self.ecs.actions, "ecr": self.ecr.actions, "logs": self.logs.actions}
        self.ledger = Ledger(data_dir / "ledger.jsonl" if data_dir else None)
        self.snapshot = (
            Snapshot(
                data_dir / "state.json",
                clock=self.clock,
                engine=self.engine,
                identity=self.identity,
                faults=self.faults,
                platform=self.platform,
                ledger=self.ledger,
            )
            if data_dir
            else None
        )
        self.moto = DomainDispatcherApplication(create_backend_app)
        self._saved_at, self._saved_ticks = 0.0, 0
        self._resets = 0

    def restore(self) -> bool:
        """Restore the state from the data folder. Returns False if there is none."""
        found = bool(self.snapshot and self.snapshot.restore())
        if not found:
            self.ledger.clear()
        return found

    def save(self, *, moto_changed: bool = True) -> None:
        if self.snapshot:
            self.snapshot.save(moto_changed=moto_changed)
            self._saved_at, self._saved_ticks = time.monotonic(), self.engine.ticks

    def save_movement(self) -> None:
        """Save changes caused only by the passage of time, at most once a second; they could be computed again."""
        moved = self.engine.ticks != self._saved_ticks
        if moved and time.monotonic() - self._saved_at >= SAVE_MOVEMENT_EVERY_SECONDS:
            self.save(moto_changed=False)

    def reset(self) -> None:
        """Delete everything (state, roles, faults, ledger, throttling) and set the clock back to wall time."""
        self._resets += 1
        self.engine.clear()
        moto_state.reset()
        self.identity.clear()
        self.faults.clear()
        self.platform.clear()
        self.webhook_inboxes.clear()
        self.ledger.clear()
        self.throttling.reset()
        self.clock.reset()
        self.save()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        reply = self._answer(environ)
        headers = [(name, value) for name, value in reply.headers if name.lower() not in ("date", "content-length")]
        headers.append(("Content-Length", str(len(reply.body))))
        start_response(f"{reply.status} {'OK' if reply.status < 400 else 'Error'}", headers)
        return [reply.body]

    def _answer(self, environ: Environ) -> Reply:
        """Handle one API call: recognize the caller, apply delivery faults, run the call, deliver or drop the reply."""
        request = parse_request(environ)
        try:
            with self.lock:
                self.identity.recognize(request)
                delivery, resets = self.faults.delivery_for(request), self._resets
        except AwsError as error:
            return error_reply(error, request)
        if delivery.before_seconds:
            time.sleep(delivery.before_seconds)
        with self.lock:
            if resets != self._resets:
                drop_connection(environ)  # what the call was for is gone
            if delivery.drop_before:
                self._record(request, error=None, effect=False, delivered=False)
                drop_connection(environ)
            reply = self._execute(environ, request, delivered=not delivery.drop_after)
        if delivery.after_seconds:
            time.sleep(delivery.after_seconds)
        if delivery.drop_after:
            drop_connection(environ)
        return reply

    def _execute(self, environ: Environ, request: ApiRequest, *, delivered: bool) -> Reply:
        """Run the call with its faults and limits. A write is in the ledger and snapshot before this returns."""
        before = self._newest_service_deployment(request)
        error = None
        try:
            self.identity.check_session_policy(request)
            self.faults.raise_for(request)
            self.throttling.check(request)
            self._hide_write(request)
            reply = self._dispatch(environ, request)
            if reply.status >= 400:
                error = error_in(reply)
        except AwsError as raised:
            error = raised
            reply = error_reply(raised, request)
        except Exception:
            logger.exception("%s %s failed inside the local AWS", request.service, request.action)
            error = AwsError("InternalFailure", "The local AWS failed. See the traceback in its log.", 500)
            reply = error_reply(error, request)
        if request.is_read:
            self.save_movement()
        else:
            self._record(request, error=error, effect=error is None, delivered=delivered, before=before, reply=reply)
            self.save(moto_changed=not self._is_engines(request))
        return self.faults.leave_out(request, reply)

    def _dispatch(self, environ: Environ, request: ApiRequest) -> Reply:
        if request.service == "sts":
            reply = self.identity.handle(request)
            if reply:
                return reply
        if self._is_engines(request):
            result = self.own_actions[request.service][request.action](request)
            return json_reply(result, request_id=request.request_id)
        if request.service == "monitoring":
            metrics = self.metrics.handle(request)
            if metrics is not None:
                return json_reply(metrics, request_id=request.request_id)
        if request.service == "ecs":
            self.ecs.prepare_for_moto(request, environ)
        if request.service == "logs":
            self.logs.prepare_for_moto(request)
        reply = call_moto(self.moto, environ, request)
        if request.service == "ecs" and reply.status < 400:
            reply = self.ecs.after_moto(request, reply)
        if request.service == "logs" and reply.status < 400:
            self.logs.after_moto(request)
        return reply

    def _is_engines(self, request: ApiRequest) -> bool:
        return request.action in self.own_actions.get(request.service, {})

    def _hide_write(self, request: ApiRequest) -> None:
        key = service_key(request)
        if key and not request.is_read:
            seconds = self.faults.stale_seconds_for(request)
            if seconds:
                self.engine.hide_next_write(key, seconds)

    def _newest_service_deployment(self, request: ApiRequest) -> tuple[str, str] | None:
        """Return the ARN and `ecs-svc` id of the named service's newest service deployment, without advancing it."""
        key = service_key(request)
        service = self.engine.services.get(key) if key else None
        if service is None or not service.service_deployments:
            return None
        return service.service_deployments[0].arn, service.deployments[0].id

    def _record(
        self,
        request: ApiRequest,
        *,
        error: AwsError | None,
        effect: bool,
        delivered: bool,
        before: tuple[str, str] | None = None,
        reply: Reply | None = None,
    ) -> None:
        if not request.belongs_in_ledger:
            return
        after = self._newest_service_deployment(request)
        started = after if effect and after and (before is None or after[0] != before[0]) else None
        self.ledger.append(
            {
                "time": self.clock.now(),
                "request_id": request.request_id,
                "account": request.account,
                "region": request.region,
                "principal": request.principal,
                "user_agent": request.user_agent,
                "api": request.service,
                "action": request.action,
                "cluster": request.cluster,
                "service": request.ecs_service,
                "parameters": request.params,
                "effect": effect,
                "delivered": delivered,
                "error": error.code if error else None,
                "error_message": error.message if error else None,
                "service_deployment_arn": started[0] if started else None,
                "deployment_id": started[1] if started else None,
                "task_definition_arn": registered_arn(request, reply) if effect else None,
            }
        )


def service_key(request: ApiRequest) -> ServiceKey | None:
    if request.service != "ecs" or not request.cluster or not request.ecs_service:
        return None
    return ServiceKey(request.account, request.region, request.cluster, request.ecs_service)


def registered_arn(request: ApiRequest, reply: Reply | None) -> str | None:
    if request.action != "RegisterTaskDefinition" or reply is None:
        return None
    return str(json.loads(reply.body)["taskDefinition"]["taskDefinitionArn"])


def call_moto(app: DomainDispatcherApplication, environ: Environ, request: ApiRequest) -> Reply:
    """Pass a call on to moto in the caller's account.

    moto reads the account from a header: https://docs.getmoto.org/en/latest/docs/multi_account.html
    """
    environ["HTTP_X_MOTO_ACCOUNT_ID"] = request.account
    captured: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        captured[:] = [status, headers]

    try:
        body = b"".join(app(environ, start_response))
    except NotImplementedError as error:
        raise AwsError("NotImplemented", f"The local AWS does not support {request.action}: {error}", 501) from error
    return Reply(int(captured[0].split()[0]), list(captured[1]), body)


def error_in(reply: Reply) -> AwsError:
    """Return the error in a reply from moto."""
    try:
        document = json.loads(reply.body)
    except ValueError:
        return AwsError("Error", reply.body.decode("utf-8", "replace")[:300], reply.status)
    code = str(document.get("__type", "Error")).rsplit("#", 1)[-1]
    return AwsError(code, str(document.get("message") or document.get("Message") or ""), reply.status)


def drop_connection(environ: Environ) -> None:
    """Close the connection without a reply."""
    connection = environ.get("werkzeug.socket")
    if connection is not None:
        connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionDroppedError
