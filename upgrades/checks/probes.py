"""Probes of the platform's health: each calls one of the platform's services and judges the answer.

HTTP 200 does not mean healthy. The agent service answers 200 while it starts, the orchestrator reports `healthy` whatever
its components report, and connectors and providers answer 200 when they fail. Response formats: platform/agent/run.go and
mcp_handler.go, platform/orchestrator/run.go and llm_provider_api_handlers.go of https://github.com/getaxonflow/axonflow.

No answer is a failure. An answer in another format than the platform's is unknown. So is a request for credentials, because
the portal has none. Staff set the addresses on the organization. Probes never use the database, so they may run on threads.
Evidence holds the address, the status, the time and the fields that decided, never a body.
"""

import json
import logging
import re
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from django.conf import settings

from portal import outbound
from portal.models import Organization
from portal.outbound import Answer, OutboundFailed, OutboundRefused
from upgrades.states import CheckStatus

logger = logging.getLogger(__name__)

PROBE_SECONDS = 3.0
# A path through a provider or connector takes longer: a completion, or the platform's own 10 second timeout
# (connector_marketplace).
PATH_SECONDS = 15.0
MAX_NAMES = 20
LONGEST_TEXT = 80
# A name from the platform that becomes part of a URL: nothing in it may leave or end its path segment.
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")

Json = dict[str, Any]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Finding:
    """The result of a probe: a sentence, and the facts that it is based on (JSON)."""

    status: CheckStatus
    detail: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def with_evidence(self, **facts: Any) -> "Finding":
        return replace(self, evidence={**self.evidence, **facts})


BROKEN = Finding(CheckStatus.UNKNOWN, "The portal failed to run this check. See its log for the reason.")

Judge = Callable[[Json], Finding]


@dataclass(frozen=True)
class Service:
    """A service of the platform: its name in a sentence, and the base address that staff set."""

    label: str
    address: str


@dataclass(frozen=True)
class Choice:
    """The provider or connector to test. `name`: None if there is none; the row's finding is then `otherwise`."""

    name: str | None
    otherwise: Finding


def get_agent_service(organization: Organization) -> Service:
    return Service("agent service", organization.platform_agent_url)


def get_orchestrator_service(organization: Organization) -> Service:
    return Service("orchestrator", organization.platform_orchestrator_url)


def get_portal_service(organization: Organization) -> Service:
    return Service("customer portal", organization.platform_portal_url)


def get_result(future: Future[Found], otherwise: Found) -> Found:
    """Return the result of a probe that has ended, or `otherwise` if it crashed, so that other results still show."""
    error = future.exception()
    if error is None:
        return future.result()
    logger.error("a probe failed", exc_info=error)
    return otherwise


# Before an upgrade


def probe_agent(organization: Organization) -> Finding:
    """Check the agent service by `GET /health`: `status` is `starting` until migrations have run, then `healthy`."""
    return ask(get_agent_service(organization), "/health", judge_agent)


def judge_agent(body: Json) -> Finding:
    status, facts = evidence_value(body.get("status")), select_evidence(body, "status", "version")
    if status == "healthy":
        return Finding(CheckStatus.PASS, f"The agent service is healthy{format_version(body)}.", facts)
    if status is None:
        return Finding(CheckStatus.UNKNOWN, "The agent service's answer has no `status`.", facts)
    why = ": its migrations may still be running" if status == "starting" else ""
    return Finding(CheckStatus.FAIL, f"The agent service says `{status}`{why}.", facts)


def probe_orchestrator(organization: Organization) -> Finding:
    """Check the orchestrator by `GET /health`. Its `status` is always `healthy`, so all `components` must be true."""
    return ask(get_orchestrator_service(organization), "/health", judge_orchestrator)


def judge_orchestrator(body: Json) -> Finding:
    facts = select_evidence(body, "status", "version")
    components = body.get("components")
    if not isinstance(components, dict) or not components:
        return Finding(
            CheckStatus.UNKNOWN, "The orchestrator's answer names no components, so its health is not known.", facts
        )
    facts["components"] = build_evidence_map(components)
    down = [name for name, value in components.items() if value is False]
    odd = [name for name, value in components.items() if not isinstance(value, bool)]
    if down:
        return Finding(CheckStatus.FAIL, f"Down in the orchestrator: {join_names(down)}.", facts)
    if facts.get("status") not in (None, "healthy"):
        return Finding(CheckStatus.FAIL, f"The orchestrator says `{facts['status']}`.", facts)
    if odd:
        return Finding(CheckStatus.UNKNOWN, f"Neither up nor down in the orchestrator: {join_names(odd)}.", facts)
    return Finding(CheckStatus.PASS, f"All {len(components)} components are up{format_version(body)}.", facts)


def probe_connectors(organization: Organization) -> Finding:
    """Check the connectors by `GET /mcp/health` of the agent service.

    A 200 may have `healthy` false. Until there is a registry, the answer is 503.
    """
    return ask(get_agent_service(organization), "/mcp/health", judge_connectors)


def judge_connectors(body: Json) -> Finding:
    facts = select_evidence(body, "healthy", "total_connectors", "healthy_count", "unhealthy_count")
    healthy, total, bad = body.get("healthy"), facts.get("total_connectors"), facts.get("unhealthy_count")
    if not isinstance(healthy, bool):
        return Finding(CheckStatus.UNKNOWN, "The connector health in the answer has no `healthy`.", facts)
    if not healthy or bad:
        counted = f"{bad} of {total} connectors are" if bad and total else "Connectors are"
        return Finding(CheckStatus.FAIL, f"{counted} not healthy.", facts)
    if not total:
        return Finding(CheckStatus.UNKNOWN, "No connector is registered, so there is none to verify.", facts)
    return Finding(CheckStatus.PASS, f"{describe_count(total, 'connector')} healthy.", facts)


def probe_providers(organization: Organization) -> Finding:
    """Check the LLM providers by `GET /api/v1/llm-providers/status` of the orchestrator.

    If a provider fails, the answer is still 200 and its `status` shows the failure.
    """
    return ask(get_orchestrator_service(organization), "/api/v1/llm-providers/status", judge_providers)


def judge_providers(body: Json) -> Finding:
    statuses = provider_statuses(body)
    if statuses is None:
        return Finding(CheckStatus.UNKNOWN, "The LLM provider status has no `providers`.")
    facts = {"providers": build_evidence_map(statuses)}
    bad = [f"{name} ({status})" for name, status in statuses.items() if status not in ("healthy", "unknown")]
    unknown = [name for name, status in statuses.items() if status == "unknown"]
    if not statuses:
        return Finding(CheckStatus.UNKNOWN, "No LLM provider is set up, so there is none to verify.", facts)
    if bad:
        return Finding(CheckStatus.FAIL, f"LLM providers not healthy: {join_names(bad)}.", facts)
    if unknown:
        return Finding(CheckStatus.UNKNOWN, f"LLM providers not checked: {join_names(unknown)}.", facts)
    return Finding(CheckStatus.PASS, f"{describe_count(len(statuses), 'LLM provider')} healthy.", facts)


def provider_statuses(body: Json) -> dict[str, str] | None:
    """Return the status by name; null is `unknown`. The code sends a map, the published OpenAPI file shows an array."""
    providers = body.get("providers")
    if isinstance(providers, list):
        rows = [row for row in providers if isinstance(row, dict)]
        providers = {str(row.get("name")): row if "status" in row else row.get("health") for row in rows}
    if not isinstance(providers, dict):
        return None
    return {
        text(name): text(entry.get("status", "unknown")) if isinstance(entry, dict) else "unknown"
        for name, entry in providers.items()
    }


# After an upgrade


def probe_portal_health(organization: Organization) -> Finding:
    """Check the customer portal by `GET /health`: the text `healthy`, or JSON with that `status`."""
    return ask(get_portal_service(organization), "/health", judge_portal_health, accepts_text=True)


def judge_portal_health(body: Json) -> Finding:
    status, facts = evidence_value(body.get("status")), select_evidence(body, "status", "version")
    if status == "healthy":
        return Finding(CheckStatus.PASS, f"The customer portal is healthy{format_version(body)}.", facts)
    if status is None:
        return Finding(CheckStatus.UNKNOWN, "The customer portal's answer has no `status`.", facts)
    return Finding(CheckStatus.FAIL, f"The customer portal says `{status}`.", facts)


def probe_sign_in(organization: Organization) -> Finding:
    """Check the sign-in by `GET /api/v1/auth/session` of the customer portal.

    The answer is the signed-in user, or a 401 in the portal's or the platform's own format.
    """
    return ask(get_portal_service(organization), "/api/v1/auth/session", judge_session, expected={200, 401})


def judge_session(body: Json) -> Finding:
    facts = select_evidence(body, "code")
    if isinstance(body.get("user"), dict) or asks_to_sign_in(body):
        return Finding(CheckStatus.PASS, "The customer portal's sign-in answers.", facts)
    detail = "The answer is not recognized as the customer portal's sign-in. Open it and sign this row."
    return Finding(CheckStatus.UNKNOWN, detail, facts)


def asks_to_sign_in(body: Json) -> bool:
    """Return whether this is a 401 in this portal's or the platform's own format.

    A proxy in front of it, or another application, may also answer 401 in JSON.
    """
    return body.get("code") == "not_authenticated" or "session" in text(body.get("error", "")).lower()


def probe_portal_views(organization: Organization) -> Finding:
    """Check the deployment view by `GET /api/v1/deployments/upgrades` of the customer portal.

    The answer is the list, or a 401 in the portal's or the platform's own format. The probe has no session, so it opens no
    page.
    """
    return ask(
        get_portal_service(organization), "/api/v1/deployments/upgrades", judge_portal_views, expected={200, 401}
    )


def judge_portal_views(body: Json) -> Finding:
    if asks_to_sign_in(body):
        detail = "The customer portal's deployment view answers and asks to sign in. No page was opened."
        return Finding(CheckStatus.PASS, detail)
    listing = next((body[name] for name in ("items", "upgrades") if isinstance(body.get(name), list)), None)
    if listing is None:
        detail = "The answer is not recognized as the customer portal's deployment view. Open it and sign this row."
        return Finding(CheckStatus.UNKNOWN, detail)
    facts = {"upgrades": len(listing)}
    return Finding(CheckStatus.PASS, "The customer portal's deployment view answers.", facts)


def choose_provider(organization: Organization) -> Choice:
    """Choose the first LLM provider that the orchestrator reports as healthy. Unlike the prompt, this is free."""
    return first_healthy(
        get_orchestrator_service(organization), "/api/v1/llm-providers/status", provider_statuses, "LLM provider"
    )


def probe_provider_path(organization: Organization, name: str) -> Finding:
    """Have an LLM provider complete a prompt (`POST .../test`, 50 tokens). The completion costs money."""

    def judge(body: Json) -> Finding:
        facts = select_evidence(body, "status", "model")
        if body.get("status") == "success":
            return Finding(CheckStatus.PASS, f"The LLM provider {name} completed a prompt.", facts)
        return Finding(CheckStatus.FAIL, f"The LLM provider {name} did not complete a prompt.", facts)

    path = f"/api/v1/llm-providers/{name}/test"
    found = ask(get_orchestrator_service(organization), path, judge, method="POST", seconds=PATH_SECONDS)
    return found.with_evidence(provider=name)


def probe_connector_path(organization: Organization) -> Finding:
    """Check one path through a connector: request the health of the first healthy one."""
    service, what = get_agent_service(organization), "connector"
    chosen = first_healthy(service, "/mcp/connectors", connector_statuses, what)
    if chosen.name is None:
        return chosen.otherwise

    def judge(body: Json) -> Finding:
        facts = select_evidence(body, "healthy")
        if body.get("healthy") is True:
            return Finding(CheckStatus.PASS, f"The {what} {chosen.name} answers.", facts)
        return Finding(CheckStatus.FAIL, f"The {what} {chosen.name} is not healthy.", facts)

    path = f"/mcp/connectors/{chosen.name}/health"
    return ask(service, path, judge, seconds=PATH_SECONDS).with_evidence(connector=chosen.name)


def connector_statuses(body: Json) -> dict[str, str] | None:
    """Return `healthy` or `unhealthy` by connector name."""
    listing = body.get("connectors")
    if not isinstance(listing, list):
        return None
    rows = [row for row in listing if isinstance(row, dict)]
    return {text(row.get("name")): "healthy" if row.get("healthy") is True else "unhealthy" for row in rows}


def first_healthy(
    service: Service, path: str, statuses_of: Callable[[Json], dict[str, str] | None], what: str
) -> Choice:
    """Choose the first healthy one that the service lists and whose name is safe in a URL."""
    names: list[str] = []

    def choose(body: Json) -> Finding:
        statuses = statuses_of(body) or {}
        healthy = [name for name, status in statuses.items() if status == "healthy"]
        names.extend(name for name in healthy if SAFE_NAME.fullmatch(name))
        facts = {f"{what}s": build_evidence_map(statuses)}
        if healthy:
            detail = f"No healthy {what} has a name that can be used in a URL: {join_names(healthy)}."
            return Finding(CheckStatus.UNKNOWN, detail, facts)
        if "unknown" in statuses.values():
            return Finding(CheckStatus.UNKNOWN, f"No {what} is known to be healthy, so none was tested.", facts)
        status = CheckStatus.FAIL if statuses else CheckStatus.UNKNOWN
        return Finding(status, f"No {what} is healthy, so none was tested.", facts)

    found = ask(service, path, choose, seconds=PATH_SECONDS)
    return Choice(names[0] if names else None, found)


# Requests


def ask(
    service: Service,
    path: str,
    judge: Judge,
    *,
    method: str = "GET",
    seconds: float = PROBE_SECONDS,
    expected: frozenset[int] | set[int] = frozenset({200}),
    accepts_text: bool = False,
) -> Finding:
    """Call the service and let `judge` read the JSON object of an answer with an `expected` status.

    `accepts_text`: an answer of one bare word counts as `{"status": <word>}`.
    """
    if not service.address:
        return Finding(
            CheckStatus.UNKNOWN, f"The address of the {service.label} is not set. Staff can set it in the admin."
        )
    url = service.address.rstrip("/") + path
    facts: dict[str, Any] = {"url": url}
    body = b"{}" if method == "POST" else None
    headers = {"Accept": "application/json"} | ({"Content-Type": "application/json"} if body else {})
    try:
        answer = outbound.send(
            method, url, networks=settings.PROBE_NETWORKS, headers=headers, body=body, seconds=seconds
        )
    except OutboundRefused as error:
        return Finding(CheckStatus.UNKNOWN, f"The {service.label} was not contacted: {error}", facts)
    except OutboundFailed as error:
        return Finding(CheckStatus.FAIL, f"The {service.label} did not answer. {error}", facts)
    facts |= {"http_status": answer.status, "ms": round(answer.seconds * 1000)}
    return judge_answer(service, answer, judge, expected=expected, accepts_text=accepts_text).with_evidence(**facts)


def judge_answer(
    service: Service, answer: Answer, judge: Judge, *, expected: frozenset[int] | set[int], accepts_text: bool
) -> Finding:
    status, answered = answer.status, f"The {service.label} answered HTTP {answer.status}"
    if status in expected:
        body = as_object(answer.body, accepts_text=accepts_text)
        if body is None:
            return Finding(CheckStatus.UNKNOWN, f"{answered}, but not in the platform's format. Check the address.")
        return judge(body)
    if status >= 500:
        return Finding(CheckStatus.FAIL, f"{answered}.")
    if status in (401, 403):
        return Finding(CheckStatus.UNKNOWN, f"{answered}. It asks for credentials, and the portal has none.")
    if 300 <= status < 400:
        detail = f"{answered}, a redirect. The portal does not follow redirects: set the final address."
        return Finding(CheckStatus.UNKNOWN, detail)
    return Finding(CheckStatus.UNKNOWN, f"{answered}, which says nothing about its health. Check the address.")


def as_object(body: bytes, *, accepts_text: bool) -> Json | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        word = body.strip()
        if accepts_text and re.fullmatch(rb"[A-Za-z]{1,20}", word):
            return {"status": word.decode()}
        return None
    return found if isinstance(found, dict) else None


# Values from the platform, made safe: short, printable, and valid in a JSON column.


def text(value: Any) -> str:
    cleaned = "".join(character for character in str(value) if character.isprintable())
    return cleaned if len(cleaned) <= LONGEST_TEXT else f"{cleaned[: LONGEST_TEXT - 1]}…"


def evidence_value(value: Any) -> str | int | bool | None:
    """Return a value as evidence. A list or object is shown only as its type."""
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    return text(value) if isinstance(value, str) else type(value).__name__


def select_evidence(body: Json, *names: str) -> dict[str, Any]:
    return {name: evidence_value(body[name]) for name in names if name in body}


def build_evidence_map(values: dict[str, Any]) -> dict[str, Any]:
    return {text(name): evidence_value(value) for name, value in list(values.items())[:MAX_NAMES]}


def join_names(names: list[str]) -> str:
    rest = len(names) - MAX_NAMES
    return ", ".join(text(name) for name in names[:MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def describe_count(number: Any, what: str) -> str:
    return f"1 {what} is" if number == 1 else f"All {number} {what}s are"


def format_version(body: Json) -> str:
    version = body.get("version")
    return f", version {text(version)}" if isinstance(version, str) and version else ""
