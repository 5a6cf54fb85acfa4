"""Probes of the platform's health, and how they judge the answers: HTTP 200 does not mean healthy.

Real answers of the platform come from the local AWS, unusual ones from the test's own server.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from portal.models import Organization
from tests.conftest import Cast
from tests.local_aws import LocalAws
from tests.outside import Outside, as_json, drip, outside, raw
from tests.upgrades.conftest import at_local_aws
from upgrades.checks import probes
from upgrades.checks.probes import Finding
from upgrades.states import CheckStatus

PASS, FAIL, UNKNOWN = CheckStatus.PASS, CheckStatus.FAIL, CheckStatus.UNKNOWN
Probe = Callable[[Organization], Finding]


def provider_path(organization: Organization) -> Finding:
    """Run both halves, as the validation does."""
    chosen = probes.choose_provider(organization)
    return probes.probe_provider_path(organization, chosen.name) if chosen.name else chosen.otherwise


ALL_PROBES: list[Probe] = [
    probes.probe_agent,
    probes.probe_orchestrator,
    probes.probe_connectors,
    probes.probe_providers,
    probes.probe_portal_health,
    probes.probe_sign_in,
    probes.probe_portal_views,
    provider_path,
    probes.probe_connector_path,
]
HEALTH = {
    probes.probe_agent: "/health",
    probes.probe_orchestrator: "/health",
    probes.probe_connectors: "/mcp/health",
    probes.probe_providers: "/api/v1/llm-providers/status",
}


def get_name(probe: Any) -> str:
    return getattr(probe, "__name__", "").removeprefix("probe_")


@pytest.fixture
def server() -> Iterator[Outside]:
    with outside() as running:
        yield running


@pytest.fixture
def organization(server: Outside) -> Organization:
    """Return an organization whose three services are all at the test's own server."""
    return Organization(
        platform_agent_url=server.url, platform_orchestrator_url=f"{server.url}/", platform_portal_url=server.url
    )


# The real platform


@pytest.mark.parametrize("probe", ALL_PROBES, ids=get_name)
def test_a_healthy_platform_passes(cast: Cast, platform: LocalAws, probe: Probe) -> None:
    at_local_aws(platform, cast.acme)

    finding = probe(cast.acme)

    asks_to_sign_in = probe in (probes.probe_sign_in, probes.probe_portal_views)
    assert finding.evidence["http_status"] == (401 if asks_to_sign_in else 200)
    assert finding.status == PASS
    assert finding.evidence["url"].startswith(f"{platform.url}/_platform/{cast.acme.deployment_stack}/")
    assert 0 <= finding.evidence["ms"] < 3000


def test_the_deciding_fields_are_evidence(cast: Cast, platform: LocalAws) -> None:
    at_local_aws(platform, cast.acme)

    assert probes.probe_agent(cast.acme).evidence | {"ms": 0} == {
        "url": f"{cast.acme.platform_agent_url}/health",
        "http_status": 200,
        "ms": 0,
        "status": "healthy",
        "version": "9.9.0",
    }
    assert probes.probe_orchestrator(cast.acme).evidence["components"]["llm_router"] is True
    assert probes.probe_connectors(cast.acme).evidence["healthy_count"] == 3
    assert probes.probe_providers(cast.acme).evidence["providers"] == dict.fromkeys(
        ["anthropic", "bedrock", "openai"], "healthy"
    )
    assert provider_path(cast.acme).evidence["provider"] == "anthropic"
    assert probes.probe_connector_path(cast.acme).evidence["connector"] == "postgres"


@pytest.mark.parametrize(
    ("part", "state", "probe", "status", "sentence"),
    [
        ("agent", "starting", probes.probe_agent, FAIL, "says `starting`: its migrations may still be running"),
        ("agent", "starting", probes.probe_connectors, FAIL, "HTTP 503"),
        ("agent", "down", probes.probe_agent, FAIL, "HTTP 503"),
        ("mcp", "down", probes.probe_connectors, FAIL, "HTTP 503"),
        ("component/llm_router", "unhealthy", probes.probe_orchestrator, FAIL, "Down in the orchestrator: llm_router"),
        ("connector/slack", "unhealthy", probes.probe_connectors, FAIL, "1 of 3 connectors are not healthy"),
        ("connector/slack", "error", probes.probe_connectors, FAIL, "1 of 3 connectors are not healthy"),
        ("provider/openai", "degraded", probes.probe_providers, FAIL, r"not healthy: openai \(degraded\)"),
        ("provider/openai", "unhealthy", probes.probe_providers, FAIL, r"not healthy: openai \(unhealthy\)"),
        ("provider/openai", "unknown", probes.probe_providers, UNKNOWN, "not checked: openai"),
        ("provider/openai", "unchecked", probes.probe_providers, UNKNOWN, "not checked: openai"),
        ("provider/anthropic", "test_fails", provider_path, FAIL, "HTTP 500"),
        ("orchestrator", "redirect", probes.probe_orchestrator, UNKNOWN, "a redirect"),
        ("orchestrator", "not_json", probes.probe_orchestrator, UNKNOWN, "not in the platform's format"),
        ("orchestrator", "huge", probes.probe_orchestrator, FAIL, "larger than 65536 bytes"),
        ("orchestrator", "locked", probes.probe_providers, UNKNOWN, "asks for credentials, and the portal has none"),
        ("customer-portal", "down", probes.probe_sign_in, FAIL, "HTTP 503"),
        ("customer-portal", "not_json", probes.probe_sign_in, UNKNOWN, "not in the platform's format"),
        ("customer-portal", "down", probes.probe_portal_health, FAIL, "HTTP 503"),
        ("customer-portal", "redirect", probes.probe_portal_views, UNKNOWN, "a redirect"),
    ],
)
def test_an_unhealthy_part_of_the_platform(
    cast: Cast, platform: LocalAws, part: str, state: str, probe: Probe, status: CheckStatus, sentence: str
) -> None:
    at_local_aws(platform, cast.acme)
    platform.set_platform(cast.acme.deployment_stack, part, state)

    assert_found(probe(cast.acme), status, sentence)


def assert_found(finding: Finding, status: CheckStatus, sentence: str) -> None:
    assert finding.status == status, finding
    assert re.search(sentence, finding.detail), finding


# Unusual answers


ODD: list[tuple[Probe, Any, CheckStatus, str]] = [
    (probes.probe_agent, {"status": "degraded"}, FAIL, "says `degraded`"),
    (probes.probe_agent, {"status": "Healthy"}, FAIL, "says `Healthy`"),
    (probes.probe_agent, {"status": True}, FAIL, "says `True`"),
    (probes.probe_agent, {"status": None}, UNKNOWN, "no `status`"),
    (probes.probe_agent, {}, UNKNOWN, "no `status`"),
    (probes.probe_agent, [], UNKNOWN, "not in the platform's format"),
    (probes.probe_agent, "healthy", UNKNOWN, "not in the platform's format"),
    (probes.probe_orchestrator, {"status": "healthy"}, UNKNOWN, "names no components"),
    (probes.probe_orchestrator, {"status": "healthy", "components": {}}, UNKNOWN, "names no components"),
    (probes.probe_orchestrator, {"status": "healthy", "components": []}, UNKNOWN, "names no components"),
    (probes.probe_orchestrator, {"status": "healthy", "components": {"a": True, "b": False}}, FAIL, r"Down .*: b\."),
    (probes.probe_orchestrator, {"status": "healthy", "components": {"a": "ok"}}, UNKNOWN, "Neither up nor down"),
    (probes.probe_orchestrator, {"status": "healthy", "components": {"a": 1}}, UNKNOWN, "Neither up nor down"),
    (probes.probe_orchestrator, {"status": "starting", "components": {"a": True}}, FAIL, "says `starting`"),
    (probes.probe_orchestrator, {"components": {"a": True}}, PASS, "All 1 components"),
    (probes.probe_connectors, {"healthy": False}, FAIL, "Connectors are not healthy"),
    (probes.probe_connectors, {"healthy": True, "total_connectors": 3, "unhealthy_count": 1}, FAIL, "1 of 3"),
    (probes.probe_connectors, {"healthy": True, "total_connectors": 0}, UNKNOWN, "none to verify"),
    (probes.probe_connectors, {"healthy": True}, UNKNOWN, "none to verify"),
    (probes.probe_connectors, {"healthy": "true", "total_connectors": 1}, UNKNOWN, "no `healthy`"),
    (probes.probe_connectors, {"healthy": True, "total_connectors": 1}, PASS, "1 connector is healthy"),
    (probes.probe_providers, {"providers": {}}, UNKNOWN, "none to verify"),
    (probes.probe_providers, {"providers": []}, UNKNOWN, "none to verify"),
    (probes.probe_providers, {"providers": None}, UNKNOWN, "has no `providers`"),
    (probes.probe_providers, {"error": "x"}, UNKNOWN, "has no `providers`"),
    (probes.probe_providers, {"providers": {"a": None}}, UNKNOWN, "not checked: a"),
    (probes.probe_providers, {"providers": {"a": {"status": "healthy"}, "b": None}}, UNKNOWN, "not checked: b"),
    (probes.probe_providers, {"providers": {"a": {}}}, UNKNOWN, "not checked: a"),
    (probes.probe_providers, {"providers": {"a": "healthy"}}, UNKNOWN, "not checked: a"),
    (probes.probe_providers, {"providers": {"a": {"status": "unhealthy"}, "b": None}}, FAIL, r"a \(unhealthy\)"),
    (probes.probe_providers, {"providers": [{"name": "a", "status": "healthy"}]}, PASS, "1 LLM provider is healthy"),
    (probes.probe_providers, {"providers": [{"name": "a", "health": {"status": "degraded"}}]}, FAIL, "a .degraded"),
    (probes.probe_providers, {"providers": [{"name": "a", "health": None}, 7]}, UNKNOWN, "not checked: a"),
    (probes.probe_portal_health, {"status": "healthy"}, PASS, "is healthy"),
    (probes.probe_portal_health, {"status": "unhealthy"}, FAIL, "says `unhealthy`"),
    (probes.probe_portal_health, {}, UNKNOWN, "no `status`"),
    (probes.probe_sign_in, {"user": {"email": "a@example.com"}}, PASS, "sign-in answers"),
    (probes.probe_sign_in, {}, UNKNOWN, "not recognized as the customer portal's sign-in. Open it and sign"),
    (probes.probe_sign_in, {"user": None, "error": None}, UNKNOWN, "not recognized as"),
    (probes.probe_portal_views, {"items": [], "total": 0}, PASS, "deployment view answers"),
    (probes.probe_portal_views, {"upgrades": [{}]}, PASS, "deployment view answers"),
    (probes.probe_portal_views, {}, UNKNOWN, "not recognized as the customer portal's deployment view"),
    (probes.probe_portal_views, {"items": None}, UNKNOWN, "not recognized as"),
]


@pytest.mark.parametrize(("probe", "body", "status", "sentence"), ODD, ids=lambda value: get_name(value) or None)
def test_an_unusual_answer(
    server: Outside, organization: Organization, probe: Probe, body: Any, status: CheckStatus, sentence: str
) -> None:
    server.otherwise = as_json(body)

    assert_found(probe(organization), status, sentence)


@pytest.mark.parametrize(
    ("probe", "body", "status", "sentence"),
    [
        (probes.probe_sign_in, {"detail": "Sign in first.", "code": "not_authenticated"}, PASS, "sign-in answers"),
        (probes.probe_sign_in, {"error": "No active session"}, PASS, "sign-in answers"),
        (probes.probe_sign_in, {"message": "Unauthorized"}, UNKNOWN, "Open it and sign this row"),
        (probes.probe_sign_in, {"error": {"code": 401}}, UNKNOWN, "Open it and sign this row"),
        (probes.probe_portal_views, {"error": "No active session"}, PASS, "answers and asks to sign in"),
        (probes.probe_portal_views, {"message": "Unauthorized"}, UNKNOWN, "Open it and sign this row"),
    ],
)
def test_a_customer_portal_that_asks_to_sign_in(
    server: Outside, organization: Organization, probe: Probe, body: Any, status: CheckStatus, sentence: str
) -> None:
    """A proxy in front of it answers 401 in JSON as well."""
    server.otherwise = as_json(body, status=401)

    assert_found(probe(organization), status, sentence)


@pytest.mark.parametrize("probe", HEALTH, ids=get_name)
@pytest.mark.parametrize(
    ("answer", "status", "sentence"),
    [
        (as_json({}, status=503), FAIL, "HTTP 503"),
        (as_json({}, status=500), FAIL, "HTTP 500"),
        (as_json({}, status=401), UNKNOWN, "asks for credentials"),
        (as_json({}, status=403), UNKNOWN, "asks for credentials"),
        (as_json({}, status=404), UNKNOWN, "says nothing about its health"),
        (as_json({}, status=429), UNKNOWN, "says nothing about its health"),
        (as_json({}, status=302), UNKNOWN, "a redirect"),
        (raw(b"HTTP/1.1 204 No Content\r\n\r\n"), UNKNOWN, "says nothing about its health"),
        (raw(b"HTTP/1.1 200 OK\r\n\r\n<html>healthy</html>"), UNKNOWN, "not in the platform's format"),
        (raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 60000), UNKNOWN, "not in the platform's format"),
        (raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"9" * 60000), UNKNOWN, "not in the platform's format"),
        (raw(b"HTTP/1.1 200 OK\r\n\r\n\xff\xfe"), UNKNOWN, "not in the platform's format"),
        (raw(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 70000), FAIL, "larger than"),
        (raw(b"secret"), FAIL, "did not answer"),
    ],
)
def test_an_answer_that_is_not_the_platforms(
    server: Outside, organization: Organization, probe: Probe, answer: Any, status: CheckStatus, sentence: str
) -> None:
    server.otherwise = answer

    finding = probe(organization)

    assert_found(finding, status, sentence)
    assert "secret" not in json.dumps(finding.evidence) + finding.detail
    assert len(server.requests) == 1


def test_a_slow_platform_fails_in_time(server: Outside, organization: Organization) -> None:
    server.otherwise = drip(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 1000)
    began = time.monotonic()

    assert_found(probes.probe_agent(organization), FAIL, "No complete response within 3 seconds")

    assert time.monotonic() - began < 4


def test_a_refused_connection_fails(server: Outside, organization: Organization) -> None:
    server.stop()

    assert_found(probes.probe_agent(organization), FAIL, "Nothing accepted the connection")


@pytest.mark.parametrize("probe", ALL_PROBES, ids=get_name)
def test_an_address_that_is_not_set_is_unknown(probe: Probe) -> None:
    assert_found(probe(Organization()), UNKNOWN, r"The address of the .* is not set\. Staff can set it")


@pytest.mark.parametrize("probe", ALL_PROBES, ids=get_name)
def test_a_forbidden_address_is_not_contacted(
    server: Outside, organization: Organization, settings: Any, probe: Probe
) -> None:
    settings.PROBE_NETWORKS = ["10.0.0.0/8"]

    assert_found(probe(organization), UNKNOWN, "was not contacted: 127.0.0.1 resolves to a non-public address")

    assert server.connections == 0


# Evidence


def test_evidence_holds_no_secrets_or_control_characters(server: Outside, organization: Organization) -> None:
    nasty = "x\x00\x1b[31m\u202e\ud800" + "y" * 500
    components = {nasty: False, **{f"c{number}": False for number in range(100)}}
    server.answers["/health"] = as_json({"status": {"api_key": "secret"}, "version": [1], "components": components})
    server.answers["/api/v1/llm-providers/status"] = as_json(
        {"providers": {"a": {"status": "unhealthy", "message": "401 for key secret"}}, "secret": "secret"}
    )

    agent, orchestrator = probes.probe_agent(organization), probes.probe_orchestrator(organization)
    providers = probes.probe_providers(organization)

    assert agent.evidence["status"] == "dict"
    assert len(orchestrator.evidence["components"]) == probes.MAX_NAMES
    kept = json.dumps([agent.detail, agent.evidence, orchestrator.detail, orchestrator.evidence, providers.evidence])
    assert "secret" not in kept + providers.detail
    assert not any(bad in kept for bad in ("\\u0000", "\\u001b", "\\u202e", "\\ud800", "y" * 100))
    assert len(orchestrator.detail) < 3000


@pytest.mark.parametrize("name", ["../../admin", "a/b", "a?b", "", ".", "..", "a b", "%2e%2e"])
def test_a_name_that_is_unsafe_in_a_url_is_not_used(server: Outside, organization: Organization, name: str) -> None:
    server.answers["/api/v1/llm-providers/status"] = as_json({"providers": {name: {"status": "healthy"}}})
    server.answers["/mcp/connectors"] = as_json({"connectors": [{"name": name, "healthy": True}]})

    for probe in (provider_path, probes.probe_connector_path):
        assert_found(probe(organization), UNKNOWN, "has a name that can be used in a URL")

    assert len(server.requests) == 2


def test_the_paths_use_the_first_healthy_one(server: Outside, organization: Organization) -> None:
    statuses = {"a": {"status": "unhealthy"}, "b": None, "c": {"status": "healthy"}, "d": {"status": "healthy"}}
    server.answers["/api/v1/llm-providers/status"] = as_json({"providers": statuses})
    server.answers["/api/v1/llm-providers/c/test"] = as_json({"status": "success", "response": "secret"})
    rows = [{"name": "a", "healthy": False}, {"name": "b.c-1", "healthy": True}]
    server.answers["/mcp/connectors"] = as_json({"connectors": rows})
    server.answers["/mcp/connectors/b.c-1/health"] = as_json({"healthy": True, "latency": 5})

    provider, connector = provider_path(organization), probes.probe_connector_path(organization)

    assert_found(provider, PASS, "LLM provider c completed a prompt")
    assert_found(connector, PASS, "connector b.c-1 answers")
    assert server.requests[1].startswith("POST /api/v1/llm-providers/c/test")
    assert "secret" not in json.dumps(provider.evidence)


@pytest.mark.parametrize(
    ("listing", "answer", "status", "sentence"),
    [
        ({"connectors": [{"name": "a", "healthy": True}]}, {"healthy": False, "error": "x"}, FAIL, "a is not healthy"),
        ({"connectors": [{"name": "a", "healthy": False}]}, None, FAIL, "No connector is healthy"),
        ({"connectors": []}, None, UNKNOWN, "No connector is healthy"),
        ({}, None, UNKNOWN, "No connector is healthy"),
    ],
)
def test_a_failing_connector_path(
    server: Outside, organization: Organization, listing: Any, answer: Any, status: CheckStatus, sentence: str
) -> None:
    server.answers["/mcp/connectors"] = as_json(listing)
    server.answers["/mcp/connectors/a/health"] = as_json(answer)

    assert_found(probes.probe_connector_path(organization), status, sentence)


@pytest.mark.parametrize(
    ("statuses", "answer", "status", "sentence"),
    [
        ({"a": {"status": "healthy"}}, as_json({"status": "error"}), FAIL, "a did not complete"),
        ({"a": {"status": "healthy"}}, as_json({}, status=500), FAIL, "HTTP 500"),
        ({"a": {"status": "healthy"}}, as_json({}, status=401), UNKNOWN, "asks for credentials"),
        ({"a": {"status": "degraded"}}, None, FAIL, "No LLM provider is healthy"),
        ({"a": None, "b": {}}, None, UNKNOWN, "No LLM provider is known to be healthy"),
        ({"a": {"status": "degraded"}, "b": None}, None, UNKNOWN, "No LLM provider is known to be healthy"),
        ({}, None, UNKNOWN, "No LLM provider is healthy"),
    ],
)
def test_a_failing_provider_path(
    server: Outside, organization: Organization, statuses: Any, answer: Any, status: CheckStatus, sentence: str
) -> None:
    server.answers["/api/v1/llm-providers/status"] = as_json({"providers": statuses})
    if answer:
        server.answers["/api/v1/llm-providers/a/test"] = answer

    assert_found(provider_path(organization), status, sentence)
