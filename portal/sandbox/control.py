"""The control API under `/_sandbox/`: JSON in, JSON out. Bad input is a 400 with a message that names the field."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from werkzeug.wrappers import Request, Response

from portal.sandbox.demo import seed_demo
from portal.sandbox.deployment_configuration import strategy_of
from portal.sandbox.faults import FaultError
from portal.sandbox.ledger import FILTERS
from portal.sandbox.platform_switches import STATUSES, SwitchError
from portal.sandbox.seed import SeedError, seed
from portal.sandbox.server import Sandbox, StartResponse
from portal.sandbox.webhook_inbox import WEBHOOK_INBOX_PREFIX

CONTROL_PREFIX = "/_sandbox/"

Json = dict[str, Any]


class ControlError(ValueError):
    """Invalid input. The message names the field."""


def with_control(sandbox: Sandbox) -> Callable[[Json, StartResponse], Iterable[bytes]]:
    """Return the whole local AWS as one WSGI application: this API under its prefix, AWS everywhere else."""

    def application(environ: Json, start_response: StartResponse) -> Iterable[bytes]:
        path = str(environ.get("PATH_INFO", ""))
        if path.startswith(WEBHOOK_INBOX_PREFIX):
            return sandbox.webhook_inboxes.handle(Request(environ))(environ, start_response)
        if path.startswith(CONTROL_PREFIX):
            return handle_control(sandbox, environ)(environ, start_response)
        return sandbox(environ, start_response)

    return application


def handle_control(sandbox: Sandbox, environ: Json) -> Response:
    """Answer one control call."""
    request = Request(environ)
    path = request.path.removeprefix(CONTROL_PREFIX).strip("/")
    methods = ROUTES.get(path)
    if methods is None:
        return answer(404, {"error": f"There is no {request.path}. Available: {', '.join(sorted(ROUTES))}."})
    handler = methods.get(request.method)
    if handler is None:
        return answer(405, {"error": f"{request.path} takes {', '.join(sorted(methods))}, not {request.method}."})
    try:
        with sandbox.lock:
            result = handler(sandbox, request)
            if request.method != "GET":
                sandbox.save()
    except (ControlError, FaultError, SeedError, SwitchError) as error:
        return answer(400, {"error": str(error)})
    return answer(200, result)


def answer(status: int, body: Json) -> Response:
    return Response(json.dumps(body), status=status, mimetype="application/json")


def get_health(sandbox: Sandbox, _request: Request) -> Json:
    return {"status": "ok", "services": len(sandbox.engine.services), "now": sandbox.clock.now()}


def post_reset(sandbox: Sandbox, _request: Request) -> Json:
    sandbox.reset()
    return {"status": "reset"}


def get_faults(sandbox: Sandbox, _request: Request) -> Json:
    return {"faults": sandbox.faults.dump()}


def post_faults(sandbox: Sandbox, request: Request) -> Json:
    fault = sandbox.faults.add(read_body(request))
    return {"fault": vars(fault)}


def delete_faults(sandbox: Sandbox, request: Request) -> Json:
    fault_id = request.args.get("id")
    removed = sandbox.faults.remove(fault_id)
    if fault_id and not removed:
        raise ControlError(f"`id` {fault_id} is not an active fault.")
    return {"removed": removed}


def get_platform(sandbox: Sandbox, _request: Request) -> Json:
    return {"switches": sandbox.platform.dump(), "parts": STATUSES}


def post_platform(sandbox: Sandbox, request: Request) -> Json:
    return {"switch": vars(sandbox.platform.set(read_body(request)))}


def delete_platform(sandbox: Sandbox, request: Request) -> Json:
    return {"removed": sandbox.platform.clear(request.args.get("stack"))}


def get_ledger(sandbox: Sandbox, request: Request) -> Json:
    filters = request.args.to_dict()
    for name, value in filters.items():
        if name not in (*FILTERS, "since"):
            raise ControlError(f"`{name}` is not a filter. Available: since, {', '.join(FILTERS)}.")
        if name == "since" and not value.isdigit():
            raise ControlError(f"`since` must be a sequence number, not {value!r}.")
    return {"entries": sandbox.ledger.select(filters)}


def get_clock(sandbox: Sandbox, _request: Request) -> Json:
    clock = sandbox.clock
    return {"now": clock.now(), "speed": clock.speed, "frozen": clock.frozen}


def post_clock(sandbox: Sandbox, request: Request) -> Json:
    body = read_body(request, known=("advance_seconds", "speed", "frozen"))
    advance, speed, frozen = body.get("advance_seconds"), body.get("speed"), body.get("frozen")
    if advance is not None and (not is_number(advance) or advance < 0):
        raise ControlError(f"`advance_seconds` must be a number of at least 0, not {advance!r}.")
    if speed is not None and (not is_number(speed) or speed <= 0):
        raise ControlError(f"`speed` must be a number above 0, not {speed!r}.")
    if frozen is not None and not isinstance(frozen, bool):
        raise ControlError(f"`frozen` must be true or false, not {frozen!r}.")
    if speed is not None:
        sandbox.clock.set_speed(float(speed))
    if frozen is not None:
        sandbox.clock.set_frozen(frozen)
    if advance is not None:
        sandbox.clock.advance(float(advance))
    return get_clock(sandbox, request)


def post_throttling(sandbox: Sandbox, request: Request) -> Json:
    body = read_body(request, known=("enabled", "scale"))
    enabled, scale = body.get("enabled"), body.get("scale")
    if enabled is not None and not isinstance(enabled, bool):
        raise ControlError(f"`enabled` must be true or false, not {enabled!r}.")
    if scale is not None and (not is_number(scale) or scale <= 0):
        raise ControlError(f"`scale` must be a number above 0, not {scale!r}.")
    sandbox.throttling.reset()
    sandbox.throttling.enabled = True if enabled is None else enabled
    sandbox.throttling.scale = 1.0 if scale is None else float(scale)
    return {"enabled": sandbox.throttling.enabled, "scale": sandbox.throttling.scale}


def post_seed(sandbox: Sandbox, request: Request) -> Json:
    body = read_body(request)
    if body.get("demo") is True and len(body) == 1:
        seed_demo(sandbox)
        return {"status": "seeded"}
    return seed(sandbox, body)


def get_state(sandbox: Sandbox, _request: Request) -> Json:
    """Return every service with its counts and the status of its newest service deployment."""
    services = []
    for service in sandbox.engine.all_services():
        live = [task for task in service.tasks if task.is_live]
        current = service.service_deployments[0] if service.service_deployments else None
        services.append(
            {
                **vars(service.key),
                "status": service.status,
                "desired": service.desired,
                "running": sum(task.is_running for task in live),
                "pending": sum(task.is_pending for task in live),
                "task_definition": service.task_definition,
                "service_deployment": current.arn if current else None,
                "service_deployment_status": current.status if current else None,
            }
        )
    return {"services": services}


def get_deployments(sandbox: Sandbox, request: Request) -> Json:
    """Return every service of a cluster with its service deployments, newest first, regardless of stale reads."""
    cluster = request.args.get("cluster")
    if not cluster:
        raise ControlError("`cluster` is missing: /_sandbox/deployments?cluster=<name>.")
    return {
        "services": {
            service.key.name: {
                "status": service.status,
                "deployments": [
                    {
                        "arn": each.arn,
                        "status": each.status,
                        "breaker": each.breaker_status,
                        "alarm": each.alarm_status,
                        "created_at": each.created_at,
                        "finished_at": each.finished_at,
                        "strategy": strategy_of(each.configuration),
                        "stage": each.lifecycle_stage if each.shifts_traffic else None,
                        "production_weight": each.production_weight if each.shifts_traffic else None,
                        "hooks": each.hooks,
                    }
                    for each in service.service_deployments
                ],
            }
            for service in sandbox.engine.all_services(cluster)
        }
    }


def read_body(request: Request, *, known: tuple[str, ...] | None = None) -> Json:
    """Return the request's JSON object. Raises ControlError for anything else and for fields that are not `known`."""
    text = request.get_data(as_text=True)
    try:
        body = json.loads(text) if text else {}
    except ValueError as error:
        raise ControlError("The body must be a JSON object.") from error
    if not isinstance(body, dict):
        raise ControlError("The body must be a JSON object.")
    for name in body:
        if known is not None and name not in known:
            raise ControlError(f"`{name}` is not a known field. Known fields: {', '.join(known)}.")
    return body


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


Handler = Callable[[Sandbox, Request], Json]

ROUTES: dict[str, dict[str, Handler]] = {
    "health": {"GET": get_health},
    "reset": {"POST": post_reset},
    "faults": {"GET": get_faults, "POST": post_faults, "DELETE": delete_faults},
    "platform": {"GET": get_platform, "POST": post_platform, "DELETE": delete_platform},
    "ledger": {"GET": get_ledger},
    "clock": {"GET": get_clock, "POST": post_clock},
    "throttling": {"POST": post_throttling},
    "seed": {"POST": post_seed},
    "state": {"GET": get_state},
    "deployments": {"GET": get_deployments},
}
