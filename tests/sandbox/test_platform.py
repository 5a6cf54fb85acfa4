"""The platform's endpoints: they follow the state of the engine and can be made unhealthy by switches."""

import io
import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command

from portal.sandbox.management.commands.sandbox import Command
from tests.local_aws import ControlApiError, LocalAws

REGISTRY = "111111111111.dkr.ecr.eu-central-1.amazonaws.com"
Json = dict[str, Any]


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_args: Any, **_kwargs: Any) -> None:
        return None


class Platform:
    """One stack's platform, called over HTTP."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws = aws
        self.stack = f"stack-{uuid.uuid4().hex[:8]}"
        self.cluster = f"{self.stack}-cluster"

    def ask(self, service: str, path: str, *, method: str = "GET") -> tuple[int, str]:
        url = self.aws.platform_url(self.stack, service) + path
        request = urllib.request.Request(url, method=method)
        try:
            with urllib.request.build_opener(NoRedirect).open(request, timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def get(self, service: str, path: str) -> Json:
        """Return the JSON of a response that must be a 200."""
        status, body = self.ask(service, path)
        assert status == 200, (status, body)
        return dict(json.loads(body))

    def switch(self, part: str, status: str, **fields: Any) -> None:
        self.aws.set_platform(self.stack, part, status, **fields)

    def seed(self, **services: Json) -> None:
        self.aws.seed(
            cluster=self.cluster,
            services=[
                {
                    "name": f"{self.stack}-{name}-service",
                    "container": name,
                    "image": f"{REGISTRY}/axonflow-{name}:v9.9.0",
                    **body,
                }
                for name, body in services.items()
            ],
        )

    def update(self, service: str, **change: Any) -> None:
        self.aws.client().update_service(cluster=self.cluster, service=f"{self.stack}-{service}-service", **change)


@pytest.fixture
def platform(aws: LocalAws) -> Platform:
    made = Platform(aws)
    made.seed(agent={}, orchestrator={}, **{"customer-portal": {}})
    return made


def test_agent_reports_status_and_version_of_running_tasks(platform: Platform) -> None:
    health = platform.get("agent", "/health")

    assert (health["status"], health["service"], health["version"]) == ("healthy", "axonflow-agent", "9.9.0")
    assert health["timestamp"].endswith("Z")


def test_orchestrator_is_always_healthy_and_lists_components(platform: Platform) -> None:
    platform.switch("component/llm_router", "unhealthy")

    health = platform.get("orchestrator", "/health")

    assert (health["status"], health["service"]) == ("healthy", "axonflow-orchestrator")
    assert health["components"]["llm_router"] is False
    assert health["components"]["policy_engine"] is True


def test_portal_answers_in_plain_text_and_needs_a_session(platform: Platform) -> None:
    assert platform.ask("customer-portal", "/health") == (200, "healthy")
    for path in ("/api/v1/auth/session", "/api/v1/deployments/upgrades"):
        status, body = platform.ask("customer-portal", path)
        assert (status, list(json.loads(body))) == (401, ["error"])


def test_connectors_are_counted_listed_and_queried(platform: Platform) -> None:
    platform.switch("connector/postgres", "unhealthy", message="connection refused by db-1")
    platform.switch("connector/slack", "error")

    health = platform.get("agent", "/mcp/health")
    listing = platform.get("agent", "/mcp/connectors")
    connectors = {each["name"]: each for each in listing["connectors"]}

    assert (health["healthy"], health["total_connectors"], health["healthy_count"]) == (False, 3, 1)
    assert health["unhealthy_count"] == 2
    assert listing["count"] == 3
    assert (connectors["salesforce"]["healthy"], "error" in connectors["salesforce"]) == (True, False)
    assert connectors["postgres"]["error"] == "connection refused by db-1"
    one = platform.get("agent", "/mcp/connectors/salesforce/health")
    assert (one["healthy"], one["latency"] > 1_000_000) == (True, True)
    assert set(platform.get("agent", "/mcp/connectors/slack/health")) == {"healthy", "error"}
    assert platform.ask("agent", "/mcp/connectors/nobody/health")[0] == 404


def test_providers_are_a_map_with_null_for_one_never_checked(platform: Platform) -> None:
    platform.switch("provider/openai", "degraded", message="rate limited")
    platform.switch("provider/bedrock", "unchecked")

    providers = platform.get("orchestrator", "/api/v1/llm-providers/status")["providers"]

    assert providers["anthropic"]["status"] == "healthy"
    assert (providers["openai"]["status"], providers["openai"]["message"]) == ("degraded", "rate limited")
    assert providers["bedrock"] is None
    listing = platform.get("orchestrator", "/api/v1/llm-providers")
    assert [each["name"] for each in listing["providers"]] == ["anthropic", "bedrock", "openai"]
    one = platform.get("orchestrator", "/api/v1/llm-providers/openai/health")
    assert (one["name"], one["health"]["status"]) == ("openai", "degraded")
    status, body = platform.ask("orchestrator", "/api/v1/llm-providers/nobody/health")
    assert (status, json.loads(body)["error"]["code"]) == (404, "NOT_FOUND")


def test_completion_fails_if_its_provider_does(platform: Platform) -> None:
    path = "/api/v1/llm-providers/{}/test"
    platform.switch("provider/openai", "test_fails", message="invalid key")

    good, good_body = platform.ask("orchestrator", path.format("anthropic"), method="POST")
    bad, bad_body = platform.ask("orchestrator", path.format("openai"), method="POST")

    assert (good, json.loads(good_body)["status"], json.loads(good_body)["provider"]) == (200, "success", "anthropic")
    assert (bad, json.loads(bad_body)) == (500, {"error": {"code": "TEST_FAILED", "message": "invalid key"}})
    assert platform.get("orchestrator", "/api/v1/llm-providers/status")["providers"]["openai"]["status"] == "healthy"
    assert platform.ask("orchestrator", path.format("openai"))[0] == 405


def test_old_tasks_answer_until_the_new_ones_are_healthy(platform: Platform) -> None:
    image = f"{REGISTRY}/axonflow-agent:v9.9.1"
    container = {"name": "agent", "image": image, "memory": 64}
    arn = platform.aws.client().register_task_definition(family="next", containerDefinitions=[container])
    platform.update("agent", taskDefinition=arn["taskDefinition"]["taskDefinitionArn"])

    seen = []
    for _ in range(30):
        health = platform.get("agent", "/health")
        seen.append((health["version"], health["status"]))
        platform.aws.advance(2)

    assert (seen[0], seen[-1]) == (("9.9.0", "healthy"), ("9.9.1", "healthy"))
    assert {status for _, status in seen} == {"healthy"}


def test_platform_without_healthy_tasks_is_starting(platform: Platform) -> None:
    platform.update("agent", desiredCount=0)
    platform.aws.advance(30)
    gone = platform.ask("agent", "/health")[0]
    platform.update("agent", desiredCount=1)

    seen = []
    for _ in range(30):
        status, body = platform.ask("agent", "/health")
        registry, _ = platform.ask("agent", "/mcp/health")
        seen.append((status, json.loads(body)["status"] if status == 200 else "", registry))
        platform.aws.advance(1)

    assert gone == 503
    order = list(dict.fromkeys(seen))
    assert order == [(503, "", 503), (200, "starting", 503), (200, "healthy", 200)]


def test_version_of_an_image_pinned_by_digest_is_that_of_its_tag(platform: Platform) -> None:
    repository = f"r-{uuid.uuid4().hex[:8]}"
    digests = platform.aws.seed(images=[{"repository": repository, "tags": ["v9.9.7", "latest"]}])["images"]
    image = f"{REGISTRY}/{repository}@{digests[f'{repository}:v9.9.7']}"
    platform.seed(agent={"image": image})

    assert platform.get("agent", "/health")["version"] == "9.9.7"


@pytest.mark.parametrize("service", ["agent", "orchestrator", "customer-portal"])
def test_service_can_fail_in_every_way_http_allows(platform: Platform, service: str) -> None:
    def answer(status: str, path: str = "/health") -> tuple[int, str]:
        platform.switch(service, status, seconds=0.3)
        return platform.ask(service, path)

    began = time.monotonic()
    assert answer("slow")[0] == 200
    assert time.monotonic() - began > 0.3
    assert answer("down")[0] == 503
    assert answer("not_json") == (200, "<html><body>Welcome to nginx!</body></html>")
    assert len(answer("huge")[1]) > 1_000_000
    assert answer("redirect")[0] == 302
    assert answer("locked")[0] == 200
    assert answer("healthy") == platform.ask(service, "/health")


def test_locked_service_needs_credentials_except_for_health(platform: Platform) -> None:
    platform.switch("agent", "locked")
    platform.switch("orchestrator", "locked")

    assert platform.ask("agent", "/mcp/health")[0] == 200
    assert platform.ask("agent", "/mcp/connectors")[0] == 401
    assert platform.ask("orchestrator", "/api/v1/llm-providers/status")[0] == 401


def test_switches_apply_to_one_stack_and_are_cleared(platform: Platform) -> None:
    other = Platform(platform.aws)
    other.seed(agent={})
    platform.switch("agent", "starting")
    other.switch("mcp", "down")

    platform.aws.clear_platform(platform.stack)

    assert platform.get("agent", "/health")["status"] == "healthy"
    assert other.ask("agent", "/mcp/health")[0] == 503
    assert other.get("agent", "/health")["status"] == "healthy"


def test_unknown_stacks_services_and_paths(platform: Platform) -> None:
    assert Platform(platform.aws).ask("agent", "/health")[0] == 503
    assert platform.ask("grafana", "/health")[0] == 404
    assert platform.ask("agent", "/api/v1/llm-providers/status")[0] == 404
    assert platform.ask("agent", "")[0] == 404
    assert platform.ask("agent", "/health", method="DELETE")[0] == 405


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"part": "agent", "status": "down"}, "`stack`"),
        ({"stack": "s", "part": "database", "status": "down"}, "`part`"),
        ({"stack": "s", "part": "agent", "status": "degraded"}, "`status`"),
        ({"stack": "s", "part": "agent", "status": "slow", "seconds": "long"}, "`seconds`"),
        ({"stack": "s", "part": "agent", "status": "down", "message": 7}, "`message`"),
        ({"stack": "s", "part": "agent", "status": "down", "colour": "red"}, "`colour`"),
    ],
)
def test_bad_switches_are_refused_with_the_field_named(aws: LocalAws, body: Json, named: str) -> None:
    with pytest.raises(ControlApiError) as refused:
        aws.call("POST", "platform", body)

    assert refused.value.status == 400
    assert named in refused.value.message


def test_the_command_sets_lists_and_clears(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", platform.aws.url)

    def run(*arguments: str) -> str:
        output = io.StringIO()
        call_command(Command(stdout=output), "platform", *arguments)
        return output.getvalue()

    assert "provider/openai: degraded, unhealthy" in run("list")
    added = run("set", platform.stack, "connector/slack", "unhealthy", "--message", "no route")
    assert added == f"{platform.stack} connector/slack: unhealthy (no route)\n"
    assert run("list") == added
    assert platform.get("agent", "/mcp/health")["healthy"] is False
    assert run("clear", platform.stack) == "cleared 1\n"
    assert platform.get("agent", "/mcp/health")["healthy"] is True


def test_switches_survive_a_restart(own_server: Callable[..., LocalAws]) -> None:
    server = own_server()
    server.set_platform("acme-prod", "provider/openai", "degraded", message="busy")
    server.kill()

    again = own_server()

    (switch,) = again.call("GET", "platform")["switches"]
    assert (switch["stack"], switch["part"], switch["status"]) == ("acme-prod", "provider/openai", "degraded")
