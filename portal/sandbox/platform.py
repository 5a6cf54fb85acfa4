"""The platform's own endpoints, under `/_platform/<stack>/agent|orchestrator|customer-portal/...`.

They report the state of the rollout engine: the version of the running tasks, or 503 if none runs. Problems that ECS
cannot see (a connector that is down, a degraded provider) are set by hand for each stack. Responses have the shapes of
the platform's handlers: platform/agent/run.go and mcp_handler.go, platform/orchestrator/run.go and
llm_provider_api_handlers.go in https://github.com/getaxonflow/axonflow. As there, HTTP 200 alone does not mean healthy.
"""

import json
import re
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from werkzeug.wrappers import Request, Response

from portal.sandbox import moto_state
from portal.sandbox.platform_switches import COMPONENTS, CONNECTORS, PROVIDERS, STATUSES, Switch
from portal.sandbox.records import Service, Task
from portal.sandbox.server import Sandbox, StartResponse

PLATFORM_PREFIX = "/_platform/"

PATH = re.compile(r"^/_platform/(?P<stack>[A-Za-z0-9-]+)/(?P<service>agent|orchestrator|customer-portal)(?P<rest>/.*)$")
METADATA_ADDRESS = "http://169.254.169.254/latest/meta-data/"
HUGE_BYTES = 1_000_000

Json = dict[str, Any]


def with_platform(
    sandbox: Sandbox, inner: Callable[[Json, StartResponse], Iterable[bytes]]
) -> Callable[[Json, StartResponse], Iterable[bytes]]:
    """Return an application that serves the platform's endpoints under their prefix, and `inner` everywhere else."""

    def application(environ: Json, start_response: StartResponse) -> Iterable[bytes]:
        if str(environ.get("PATH_INFO", "")).startswith(PLATFORM_PREFIX):
            return handle_platform(sandbox, Request(environ))(environ, start_response)
        return inner(environ, start_response)

    return application


def handle_platform(sandbox: Sandbox, request: Request) -> Response:
    """Answer as the stack's service would through its load balancer."""
    match = PATH.match(request.path)
    if match is None:
        return plain(404, "404 page not found")
    with sandbox.lock:
        front = Front.find(sandbox, match["stack"], match["service"])
    switch = front.switch(match["service"])
    if switch and switch.status == "slow":
        time.sleep(switch.seconds)
    if front.task is None or (switch and switch.status == "down"):
        # The response of an Application Load Balancer for a target group without healthy targets.
        return Response(
            "<html><body><h1>503 Service Temporarily Unavailable</h1></body></html>", 503, mimetype="text/html"
        )
    if switch and switch.status == "not_json":
        return Response("<html><body>Welcome to nginx!</body></html>", 200, mimetype="text/html")
    if switch and switch.status == "huge":
        return answer(200, {"status": "healthy", "padding": "x" * HUGE_BYTES})
    if switch and switch.status == "redirect":
        return Response(status=302, headers={"Location": METADATA_ADDRESS})
    if switch and switch.status == "locked" and match["rest"] not in OPEN_PATHS:
        return answer(401, {"error": "Missing or invalid credentials"})
    return route(front, request.method, match["service"], match["rest"])


@dataclass(frozen=True)
class Front:
    """The task that answers a call through the load balancer, and the active switches of its stack."""

    stack: str
    task: Task | None
    version: str
    now: float
    switches: dict[str, Switch]

    @classmethod
    def find(cls, sandbox: Sandbox, stack: str, component: str) -> "Front":
        """Advance the service to the current time and pick the task that answers; None if none is running."""
        service = find_service(sandbox, stack, component)
        task = first_task(service) if service else None
        version = get_version(service, task) if service and task else ""
        found = {part: switch for part in STATUSES if (switch := sandbox.platform.find(stack, part))}
        return cls(stack, task, version, sandbox.clock.now(), found)

    @property
    def is_starting(self) -> bool:
        """Return whether the answering task runs but has not passed its own health check yet."""
        return self.task is not None and not self.task.healthy

    @property
    def timestamp(self) -> str:
        return datetime.fromtimestamp(self.now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def switch(self, part: str) -> Switch | None:
        return self.switches.get(part)

    def status(self, part: str) -> str:
        switch = self.switch(part)
        return switch.status if switch else "healthy"


def find_service(sandbox: Sandbox, stack: str, component: str) -> Service | None:
    """Return the stack's ECS service in any account and region. Stack names are unique here."""
    name = f"{stack}-{component}-service"
    key = min((key for key in sandbox.engine.services if key.name == name), default=None)
    return sandbox.engine.get(key) if key else None


def first_task(service: Service) -> Task | None:
    """Return the task a load balancer would ask: a healthy one, or any running one if none is healthy."""
    running = [task for task in service.tasks if task.is_running]
    return min(running, key=lambda task: (not task.healthy, task.started_at or 0.0, task.id), default=None)


def get_version(service: Service, task: Task) -> str:
    """Return the version built into the task's image: its version tag without the `v`, or the start of its digest."""
    container = service.revisions[task.revision_arn].containers[0]
    key = service.key
    tags = [moto_state.image_tag(container["image"])]
    tags += moto_state.tags_of_digest(key.account, key.region, container["image"], container["imageDigest"])
    named = [tag for tag in tags if tag and tag != "latest"]
    return named[0].removeprefix("v") if named else str(container["imageDigest"]).removeprefix("sha256:")[:12]


# Routes

Handler = Callable[..., Response]


def route(front: Front, method: str, service: str, path: str) -> Response:
    for wanted, pattern, handler in ROUTES[service]:
        match = re.fullmatch(pattern, path)
        if match:
            return handler(front, **match.groupdict()) if method == wanted else plain(405, "")
    return plain(404, "404 page not found")


def agent_health(front: Front) -> Response:
    """Return 200 always. The service is ready only if `status` is `healthy`."""
    starting = front.is_starting or front.status("agent") == "starting"
    return answer(
        200,
        {
            "status": "starting" if starting else "healthy",
            "service": "axonflow-agent",
            "timestamp": front.timestamp,
            "version": front.version,
            "tier": "ENTERPRISE",
            "edition": "enterprise",
            "deployment_mode": "saas",
            "capabilities": [
                {"name": "policy_check", "since": "1.0.0", "description": "Policies are checked before a request."},
                {"name": "mcp_connectors", "since": "1.0.0", "description": "Connectors are reached by MCP."},
            ],
            "sdk_compatibility": {
                "min_sdk_version": {"python": "6.0.0", "go": "6.0.0"},
                "recommended_sdk_version": {"python": "9.0.0", "go": "9.0.0"},
            },
        },
    )


def mcp_health(front: Front) -> Response:
    """Return 200 even if `healthy` is false, and 503 only while there is no registry."""
    if missing := registry_missing(front):
        return missing
    unhealthy = sum(front.status(f"connector/{name}") != "healthy" for name in CONNECTORS)
    return answer(
        200,
        {
            "healthy": unhealthy == 0,
            "total_connectors": len(CONNECTORS),
            "healthy_count": len(CONNECTORS) - unhealthy,
            "unhealthy_count": unhealthy,
            "timestamp": front.timestamp,
        },
    )


def mcp_connectors(front: Front) -> Response:
    if missing := registry_missing(front):
        return missing
    connectors = []
    for name, kind in CONNECTORS.items():
        health = connector_state(front, name)
        connector = {
            "name": name,
            "healthy": health["healthy"],
            "latency_ms": health.get("latency", 0) // 1_000_000,
            "type": kind,
            "version": "1.2.0",
            "capabilities": ["query", "execute"],
        }
        connectors.append({**connector, "error": health["error"]} if "error" in health else connector)
    return answer(200, {"connectors": connectors, "count": len(connectors)})


def mcp_connector_health(front: Front, name: str) -> Response:
    if missing := registry_missing(front):
        return missing
    if name not in CONNECTORS:
        return answer(404, {"success": False, "error": f"Connector '{name}' not found"})
    return answer(200, connector_state(front, name))


def connector_state(front: Front, name: str) -> Json:
    """Return `HealthStatus` of connectors/base/connector.go: latency in nanoseconds, only `error` if the probe failed."""
    switch = front.switch(f"connector/{name}")
    if switch and switch.status == "error":
        return {"healthy": False, "error": switch.message or "context deadline exceeded"}
    state = {
        "healthy": switch is None,
        "latency": get_latency(name),
        "details": {"type": CONNECTORS[name]},
        "timestamp": front.timestamp,
    }
    return {**state, "error": switch.message or "connection refused"} if switch else state


def registry_missing(front: Front) -> Response | None:
    if front.is_starting or front.status("agent") == "starting" or front.status("mcp") == "down":
        return answer(503, {"success": False, "error": "MCP registry not initialized"})
    return None


def orchestrator_health(front: Front) -> Response:
    """Return 200 and `healthy` always. The actual health is in `components`."""
    components = {
        name: front.status(f"component/{name}") == "healthy" and not (front.is_starting and name == "llm_router")
        for name in COMPONENTS
    }
    return answer(
        200,
        {
            "status": "healthy",
            "service": "axonflow-orchestrator",
            "version": front.version,
            "timestamp": front.timestamp,
            "components": components,
            "features": {"multi_agent_planning": True, "connector_marketplace": True},
        },
    )


def providers_status(front: Front) -> Response:
    """Return the providers by name, null for one that was never checked."""
    return answer(200, {"providers": {name: provider_state(front, name) for name in PROVIDERS}})


def provider_state(front: Front, name: str) -> Json | None:
    switch = front.switch(f"provider/{name}")
    if switch and switch.status == "unchecked":
        return None
    is_bad = switch is not None and switch.status != "test_fails"
    state: Json = {
        "status": switch.status if switch and is_bad else "healthy",
        "latency": get_latency(name),
        "last_checked": front.timestamp,
    }
    if switch and is_bad:
        state |= {"message": switch.message or "upstream returned 529", "consecutive_failures": 3}
    return state


def provider_list(front: Front) -> Response:
    providers = [
        {
            "name": name,
            "type": name,
            "enabled": True,
            "priority": 10 * (number + 1),
            "weight": 1,
            "has_api_key": True,
            "health": provider_state(front, name),
        }
        for number, name in enumerate(PROVIDERS)
    ]
    pages = {"page": 1, "page_size": 20, "total_items": len(providers), "total_pages": 1}
    return answer(200, {"providers": providers, "pagination": pages})


def provider_health(front: Front, name: str) -> Response:
    """Return 200 even for a failing provider."""
    if name not in PROVIDERS:
        return provider_missing(name)
    return answer(200, {"name": name, "health": provider_state(front, name)})


def provider_test(front: Front, name: str) -> Response:
    """Return the result of a test completion. The platform runs a real one; here the provider's switch decides."""
    if name not in PROVIDERS:
        return provider_missing(name)
    switch = front.switch(f"provider/{name}")
    if switch and switch.status in ("unhealthy", "test_fails"):
        message = switch.message or "provider returned status 401: invalid x-api-key"
        return answer(500, {"error": {"code": "TEST_FAILED", "message": message}})
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    body = {"status": "success", "provider": name, "response": "Hello!", "model": PROVIDERS[name], "usage": usage}
    return answer(200, body)


def provider_missing(name: str) -> Response:
    return answer(404, {"error": {"code": "NOT_FOUND", "message": f"provider {name} not found"}})


def portal_health(front: Front) -> Response:
    """Return plain text, the only shape that the platform's own tests expect."""
    return plain(503, "starting") if front.is_starting else plain(200, "healthy")


def portal_session(front: Front) -> Response:
    return answer(401, {"error": "No active session"})


ROUTES: dict[str, list[tuple[str, str, Handler]]] = {
    "agent": [
        ("GET", "/health", agent_health),
        ("GET", "/mcp/health", mcp_health),
        ("GET", "/mcp/connectors", mcp_connectors),
        ("GET", "/mcp/connectors/(?P<name>[^/]+)/health", mcp_connector_health),
    ],
    "orchestrator": [
        ("GET", "/health", orchestrator_health),
        ("GET", "/api/v1/llm-providers/status", providers_status),
        ("GET", "/api/v1/llm-providers", provider_list),
        ("GET", "/api/v1/llm-providers/(?P<name>[^/]+)/health", provider_health),
        ("POST", "/api/v1/llm-providers/(?P<name>[^/]+)/test", provider_test),
    ],
    "customer-portal": [
        ("GET", "/health", portal_health),
        ("GET", "/api/v1/auth/session", portal_session),
        ("GET", "/api/v1/deployments/upgrades", portal_session),
    ],
}
OPEN_PATHS = ("/health", "/mcp/health")


def get_latency(name: str) -> int:
    """Return a fixed latency of 20 to 79 milliseconds in nanoseconds, as a Go duration."""
    return (20 + zlib.crc32(name.encode()) % 60) * 1_000_000


def answer(status: int, body: Json) -> Response:
    return Response(json.dumps(body), status=status, mimetype="application/json")


def plain(status: int, text: str) -> Response:
    return Response(text, status=status, mimetype="text/plain")
