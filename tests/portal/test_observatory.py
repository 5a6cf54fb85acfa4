"""The score that the scoring rules of MDN's HTTP Observatory give, over HTTPS and with the settings of production.

The rules: https://developer.mozilla.org/en-US/observatory/docs/tests_and_scoring. A score starts at 100. Bonuses count only
if the score without them is at least 90. Not counted here: the browsers' preload list, and SRI of other origins' scripts.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.models import User
from portal.web.headers import MAX_REPORT_BYTES, REPORTS_PER_MINUTE
from tests.conftest import Cast
from tests.local_aws import LocalAws

SignIn = Callable[[User], Client]

HALF_A_YEAR = 15768000
PRIVATE_REFERRER = {"no-referrer", "same-origin", "strict-origin", "strict-origin-when-cross-origin"}


def read_policy(text: str) -> dict[str, set[str]]:
    """Return the sources of each directive of a Content-Security-Policy."""
    parts = [part.split() for part in text.split(";") if part.strip()]
    return {name: set(sources) for name, *sources in parts}


def score_policy(policy: dict[str, set[str]]) -> int:
    scripts = policy.get("script-src", policy.get("default-src", set()))
    styles = policy.get("style-src", policy.get("default-src", set()))
    if not policy:
        return -25
    if scripts & {"'unsafe-inline'", "'unsafe-eval'", "data:", "https:", "http:", "*"} or not scripts:
        return -20
    if styles & {"'unsafe-inline'", "data:", "https:", "http:", "*"}:
        return 0
    return 10 if policy.get("default-src") == {"'none'"} else 5


def score_cookies(response: Any, session_cookie: str) -> int:
    """Score the cookies of a response; none is neutral."""
    cookies = response.cookies.items()
    session = [cookie for name, cookie in cookies if name.endswith(session_cookie)]
    if any(not cookie["secure"] for cookie in session):
        return -40
    if any(not cookie["httponly"] for cookie in session):
        return -30
    if any(not cookie["secure"] or not cookie["samesite"] for _, cookie in cookies):
        return -20
    return 5 if cookies else 0


def score_transport(value: str) -> int:
    ages = [int(part.partition("=")[2]) for part in value.split("; ") if part.startswith("max-age=")]
    if not ages:
        return -20
    return 0 if ages[0] >= HALF_A_YEAR else -10


def score(response: Any) -> int:
    headers = response.headers
    policy = read_policy(headers.get("Content-Security-Policy", ""))
    is_framed_nowhere = policy.get("frame-ancestors") == {"'none'"}
    found = [
        score_policy(policy),
        score_cookies(response, "sessionid"),
        score_transport(headers.get("Strict-Transport-Security", "")),
        0 if headers.get("X-Content-Type-Options") == "nosniff" else -5,
        5 if is_framed_nowhere else (0 if headers.get("X-Frame-Options") in ("DENY", "SAMEORIGIN") else -20),
        5 if headers.get("Referrer-Policy") in PRIVATE_REFERRER else 0,
        10 if headers.get("Cross-Origin-Resource-Policy") in ("same-origin", "same-site") else 0,
        10 if headers.get("Cross-Origin-Embedder-Policy") in ("require-corp", "credentialless") else 0,
        10 if headers.get("Cross-Origin-Opener-Policy") == "same-origin" else 0,
        -50 if headers.get("Access-Control-Allow-Origin") == "*" else 0,
    ]
    without_bonuses = 100 + sum(each for each in found if each < 0)
    return without_bonuses + (sum(each for each in found if each > 0) if without_bonuses >= 90 else 0)


@pytest.fixture
def production(settings: Any) -> None:
    """Set what portal/settings.py sets in production, and the tests' demo does not."""
    settings.SECURE_HSTS_SECONDS = 63072000
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/accounts/login/", {}, 200),
        ("/o/acme/", {}, 200),
        ("/o/acme/deployments/", {"HX-Request": "true"}, 200),
        ("/api/v1/deployments", {"X-Organization": "acme"}, 200),
        ("/api/v1/nowhere", {}, 404),
        ("/nowhere/", {}, 404),
        ("/static/portal.css", {}, 200),
    ],
)
def test_the_score_is_at_least_145(
    cast: Cast,
    platform: LocalAws,
    client_for: SignIn,
    production: None,
    path: str,
    headers: dict[str, str],
    status: int,
) -> None:
    client = Client() if path.startswith("/accounts/") else client_for(cast.viewer)

    response = client.get(path, headers=headers, secure=True)

    reached = score(response)
    response.close()  # a static file
    assert response.status_code == status
    assert reached >= 145


def test_the_score_of_a_plain_answer_is_low() -> None:
    """The rules do find what is missing."""
    from django.http import HttpResponse

    assert score(HttpResponse()) == 100 - 25 - 20 - 5 - 20


# --- reports and security.txt ------------------------------------------------------------------------------------------

OLD = {"csp-report": {"violated-directive": "script-src 'self'", "blocked-uri": "https://evil.example/marked"}}
NEW = [
    {"type": "csp-violation", "body": {"effectiveDirective": "img-src", "blockedURL": "https://evil.example/marked"}}
]
ODD = [{"type": "csp-violation", "body": {"effectiveDirective": "marked\n# HELP"}}, 7, {"body": []}]


def send(client: Client, report: Any, kind: str = "application/csp-report") -> int:
    body = report if isinstance(report, str) else json.dumps(report)
    return client.post("/csp-reports", body, content_type=kind).status_code


def test_reports_are_counted_by_directive_and_not_stored(local_aws: LocalAws, cast: Cast, settings: Any) -> None:
    settings.METRICS_TOKEN = "t"
    browser = Client(enforce_csrf_checks=True)
    sent = [OLD, OLD, ODD, "no json", "[" * 5000, {}]
    assert {send(browser, report) for report in sent} == {204}
    assert send(browser, NEW, "application/reports+json") == 204

    metrics = browser.get("/metrics", headers={"Authorization": "Bearer t"}).content.decode()

    for name, count in {"script-src": 2, "img-src": 1, "other": 1, "style-src": 0}.items():
        assert f'portal_csp_reports{{directive="{name}"}} {float(count)}' in metrics
    assert "marked" not in metrics


def test_reports_are_bounded_and_limited(local_aws: LocalAws, db: None) -> None:
    browser = Client()
    assert send(browser, " " * (MAX_REPORT_BYTES + 1)) == 413
    assert browser.get("/csp-reports").status_code == 405

    answers: list[int] = []
    while answers[-1:] != [429] and len(answers) <= 2 * REPORTS_PER_MINUTE:  # a new minute may begin meanwhile
        answers.append(send(browser, OLD))

    assert set(answers) == {204, 429}


def test_security_txt_names_a_contact(client: Client, db: None, settings: Any) -> None:
    settings.SECURITY_CONTACT, settings.PORTAL_URL = "mailto:security@portal.example", "https://portal.example"

    answer = client.get("/.well-known/security.txt")

    lines = dict(line.split(": ", 1) for line in answer.content.decode().splitlines())
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert lines["Contact"] == "mailto:security@portal.example"
    assert lines["Canonical"] == "https://portal.example/.well-known/security.txt"
    assert lines["Expires"].endswith("T00:00:00Z")
