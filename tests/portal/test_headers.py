"""Security headers and cookies of every response, and the settings of production."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client

from portal.models import User
from tests.conftest import Cast
from tests.local_aws import LocalAws

SignIn = Callable[[User], Client]

ROOT = Path(__file__).resolve().parent.parent.parent
HTMX = {"HX-Request": "true"}
CSP = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self' data:",
    "font-src 'self'",
    "manifest-src 'self'",
    "form-action 'self'",
    "frame-ancestors 'none'",
    "base-uri 'none'",
    "object-src 'none'",
    "report-uri /csp-reports",
    "report-to csp",
}
TENANT_PAGES = ["/o/acme/", "/o/acme/upgrades/", "/o/acme/upgrades/new", "/api/v1/deployments/upgrades", "/o/nowhere/"]

PRODUCTION = {
    "SECRET_KEY": "Zx8-only-for-this-test-" + "k" * 50 + "-0123456789",
    "ALLOWED_HOSTS": "portal.example",
    "DATABASE_URL": "postgres://portal:unsaid-1@127.0.0.1:1/portal",
    "CELERY_BROKER_URL": "redis://:unsaid-2@127.0.0.1:1/0",
    "CACHE_URL": "redis://:unsaid-3@127.0.0.1:1/1",
    "EMAIL_URL": "smtp://portal:unsaid-4@127.0.0.1:1",
    "TRUSTED_PROXY_COUNT": "1",
    "LOG_LEVEL": "DEBUG",
}


def assert_guarded(response: Any) -> None:
    headers = response.headers
    assert set(headers["Content-Security-Policy"].split("; ")) == CSP
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert "camera=()" in headers["Permissions-Policy"]
    assert headers["Reporting-Endpoints"] == 'csp="/csp-reports"'


@pytest.mark.parametrize(
    "path",
    [
        "/accounts/login/",
        "/",
        "/o/acme/",
        "/nowhere/",
        "/api/docs",
        "/api/schema",
        "/livez",
        "/api/v1/auth/session",
        "/api/v1/nowhere",
        "/static/portal.css",
    ],
)
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_every_public_response_has_security_headers(db: None, path: str, headers: dict[str, str]) -> None:
    response = Client().get(path, headers=headers)

    assert_guarded(response)
    response.close()  # a static file


@pytest.mark.parametrize("headers", [{}, HTMX])
def test_member_responses_have_headers_and_are_not_cached(
    cast: Cast, platform: LocalAws, client_for: SignIn, headers: dict[str, str]
) -> None:
    client = client_for(cast.viewer)

    for path in TENANT_PAGES:
        response = client.get(path, headers=headers)

        assert_guarded(response)
        assert response.headers["Cache-Control"] == "no-store", path


def test_our_own_errors_have_security_headers(settings: Any, db: None) -> None:
    settings.ROOT_URLCONF = "tests.portal.urls_that_fail"
    client = Client(raise_request_exception=False)

    for path in ("/fail/defect/", "/api/v1/fail/defect", "/fail/database/", "/api/v1/fail/database"):
        assert_guarded(client.get(path))


def test_cookies_are_protected_from_scripts_and_other_sites(cast: Cast) -> None:
    client = Client()
    client.get("/accounts/login/")
    client.post("/accounts/login/", {"login": cast.viewer.email, "password": cast.password})

    assert {"sessionid", "csrftoken"} <= client.cookies.keys()
    for name, cookie in client.cookies.items():
        assert cookie["samesite"] == "Lax", name
        # Our script sends the token back in X-CSRFToken. Reading it does not give access to the session.
        assert bool(cookie["httponly"]) or name == "csrftoken"


# --- production ----------------------------------------------------------------------------------------------------

IN_PRODUCTION = """
import json
import django
django.setup()
from django.conf import settings
from django.contrib.messages import constants
from django.contrib.messages.storage import default_storage
from django.http import HttpResponse
from django.test import Client, RequestFactory, override_settings

session = {"Cookie": "__Host-sessionid=" + "a" * 32}
client = Client(headers={"Host": "portal.example", "X-Forwarded-Proto": "https"}, raise_request_exception=False)
plain = Client(headers={"Host": "portal.example"})
answers = {
    "session": client.get("/api/v1/auth/session"),
    "live": client.get("/livez"),
    "plain": plain.get("/api/v1/auth/session"),
    "plain_live": plain.get("/livez"),
    "host": Client(headers={"Host": "evil.example", "X-Forwarded-Proto": "https"}).get("/api/v1/auth/session"),
    "live_by_address": Client(headers={"Host": "10.0.12.34"}).get("/livez"),
    "ready_by_address": Client(headers={"Host": "10.0.12.34"}).get("/readyz"),
    "ready": client.get("/readyz"),
    "health": client.get("/health"),
    "down": client.get("/api/v1/deployments/upgrades", headers=session),
    "schema": client.get("/api/schema"),
    "unproven": Client(
        enforce_csrf_checks=True, headers={"Host": "portal.example", "X-Forwarded-Proto": "https"}
    ).post("/api/v1/auth/login"),
}
# The outage page, rendered without the manifest of collected files.
plain_files = settings.STORAGES | {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
with override_settings(STORAGES=plain_files):
    answers["page"] = client.get("/o/acme/", headers=session)
    answers["sign_in"] = client.post("/accounts/login/", {"login": "a@example.com", "password": "x"})
visit = RequestFactory().get("/")
visit.session = {}
noticed, notices = HttpResponse(), default_storage(visit)
notices.add(constants.INFO, "Done.")
notices.update(noticed)
print(json.dumps({
    "answers": {name: [answer.status_code, dict(answer.headers), answer.content.decode(), answer.cookies.output()]
                for name, answer in answers.items()},
    "notice": noticed.cookies.output(),
    "session_cookie": [settings.SESSION_COOKIE_NAME, settings.SESSION_COOKIE_SECURE, settings.SESSION_COOKIE_HTTPONLY],
}))
"""


def in_production(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "portal.settings", **PRODUCTION}
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture(scope="module")
def production() -> dict[str, Any]:
    """Return the responses of a portal with production's settings while database, broker and cache are down."""
    ended = in_production("-c", IN_PRODUCTION)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return {**found, "log": ended.stderr}


def test_production_passes_djangos_own_check() -> None:
    ended = in_production("-W", "error", "manage.py", "check", "--deploy", "--fail-level", "INFO")

    assert ended.returncode == 0, ended.stderr
    assert "no issues" in ended.stdout


def test_production_binds_cookies_to_its_host_over_https(production: dict[str, Any]) -> None:
    status, headers, _, cookies = production["answers"]["session"]

    assert status == 401
    assert "__Host-csrftoken=" in cookies
    assert "Secure" in cookies
    assert "Domain" not in cookies
    assert "Path=/" in cookies
    assert production["session_cookie"] == ["__Host-sessionid", True, True]
    assert production["notice"].startswith("Set-Cookie: __Host-messages=")
    assert {"Path=/", "Secure", "HttpOnly"} <= set(production["notice"].split("; "))
    assert headers["Strict-Transport-Security"] == "max-age=63072000; includeSubDomains; preload"


def test_production_names_its_csrf_cookie(production: dict[str, Any]) -> None:
    refused, document = (json.loads(production["answers"][name][2]) for name in ("unproven", "schema"))

    assert refused["code"] == "csrf_failed"
    assert "the value of the __Host-csrftoken cookie" in refused["detail"]
    assert "the `__Host-csrftoken` cookie's value" in document["info"]["description"]


def test_production_says_no_password_of_its_settings(production: dict[str, Any]) -> None:
    assert "database does not serve: " in production["log"]
    assert "unsaid-" not in json.dumps(production)
    assert PRODUCTION["SECRET_KEY"] not in json.dumps(production)


def test_production_redirects_http_except_health_checks(production: dict[str, Any]) -> None:
    status, headers, _, _ = production["answers"]["plain"]

    assert (status, headers["Location"]) == (301, "https://portal.example/api/v1/auth/session")
    assert production["answers"]["plain_live"][0] == 200


def test_production_answers_only_to_its_own_name(production: dict[str, Any]) -> None:
    status, _, text, _ = production["answers"]["host"]

    assert status == 400
    assert "evil.example" not in text


def test_production_answers_a_health_check_by_address(production: dict[str, Any]) -> None:
    live, ready = (production["answers"][name] for name in ("live_by_address", "ready_by_address"))

    assert (live[0], json.loads(live[2])) == (200, {"status": "alive"})
    assert (ready[0], json.loads(ready[2])) == (503, {"status": "unready"})


def test_production_is_alive_but_not_ready_while_all_is_down(production: dict[str, Any]) -> None:
    status, headers, text, _ = production["answers"]["ready"]

    assert production["answers"]["live"][0] == 200
    assert (status, json.loads(text), headers["Retry-After"]) == (503, {"status": "unready"}, "5")


def test_production_health_names_only_the_parts_that_are_down(production: dict[str, Any]) -> None:
    status, _, text, _ = production["answers"]["health"]

    body = json.loads(text)
    assert (status, body["status"]) == (503, "unhealthy")
    assert body["checks"].keys() == {"database", "broker", "worker", "aws"}
    assert body["checks"]["database"] == body["checks"]["broker"] == body["checks"]["worker"] == "unhealthy"
    assert "127.0.0.1" not in text


@pytest.mark.parametrize("name", ["down", "page", "sign_in"])
def test_production_answers_503_while_the_database_is_down(production: dict[str, Any], name: str) -> None:
    status, headers, text, _ = production["answers"][name]

    assert (status, headers["Retry-After"]) == (503, "5")
    assert "dependency_down" in text
    for inside in ("127.0.0.1", "psycopg", "Traceback"):
        assert inside not in text


# --- invalid settings ----------------------------------------------------------------------------------------------


def settings_with(monkeypatch: pytest.MonkeyPatch, **changed: str | None) -> dict[str, Any]:
    """Load settings.py in production's environment, with some variables changed (None: not set)."""
    for name in os.environ.keys() & {*PRODUCTION, "DEMO", "DEBUG"}:
        monkeypatch.delenv(name)
    for name, value in (PRODUCTION | changed).items():
        if value is not None:
            monkeypatch.setenv(name, value)
    return runpy.run_path(str(ROOT / "portal" / "settings.py"))


def test_good_settings_start(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_with(monkeypatch)["DEBUG"] is False


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECRET_KEY", None),
        ("SECRET_KEY", ""),
        ("ALLOWED_HOSTS", None),
        ("DATABASE_URL", None),
        ("DATABASE_URL", "nonsense"),
        ("DATABASE_URL", "sqlite:///portal.db"),
        ("CELERY_BROKER_URL", None),
        ("CELERY_BROKER_URL", ""),
        ("CELERY_BROKER_URL", "nonsense"),
        ("SQS_QUEUE_URL", "portal"),
        ("SQS_QUEUE_URL", "https://sqs.eu-central-1.amazonaws.com/111111111111/portal.fifo"),
        ("CACHE_URL", None),
        ("CACHE_URL", "locmem://"),
        ("DEBUG", "maybe"),
        ("DEMO", "2"),
        ("LOG_LEVEL", "LOUD"),
        ("CSRF_TRUSTED_ORIGINS", "portal.example"),
        ("TRUSTED_PROXY_COUNT", "-1"),
        ("UPGRADE_DEADLINE_SECONDS", "soon"),
        ("UPGRADE_STALL_SECONDS", "0"),
        ("UPGRADE_POLL_SECONDS", "nan"),
        ("UPGRADE_ADOPT_SECONDS", "-1"),
        ("UPGRADE_STEADY_SECONDS", "1800"),
        ("UPGRADE_VALIDATION_SECONDS", "300"),
        ("DATABASE_CONN_MAX_AGE", "long"),
        ("EMAIL_URL", "nonsense"),
    ],
)
def test_a_bad_setting_stops_the_start_and_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str | None
) -> None:
    with pytest.raises(ImproperlyConfigured) as refused:
        settings_with(monkeypatch, **{name: value})

    assert name in str(refused.value)
    assert "docs/configuration.md" in str(refused.value)


@pytest.mark.parametrize("hosts", ["portal.example", "localhost,*", "[2001:db8::1]", ".example.com", "10.0.0.7"])
def test_a_demo_has_no_public_name(monkeypatch: pytest.MonkeyPatch, hosts: str) -> None:
    for name in ("DEMO", "DEBUG"):
        with pytest.raises(ImproperlyConfigured, match="DEMO_EXPOSED=1"):
            settings_with(monkeypatch, ALLOWED_HOSTS=hosts, SECRET_KEY=None, **{name: "1"})

    assert settings_with(monkeypatch, DEMO="1", DEMO_EXPOSED="1", ALLOWED_HOSTS=hosts)["DEMO"] is True
    assert settings_with(monkeypatch, DEMO="1", ALLOWED_HOSTS="127.0.0.1,localhost,[::1],.localhost")["DEMO"] is True


@pytest.mark.parametrize("regions", [{}, {"AWS_DEFAULT_REGION": "eu-west-1"}, {"AWS_REGION": "eu-west-1"}])
def test_an_sqs_broker_needs_a_region(monkeypatch: pytest.MonkeyPatch, regions: dict[str, str]) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in regions.items():
        monkeypatch.setenv(name, value)

    if regions:
        options = settings_with(monkeypatch, CELERY_BROKER_URL="sqs://")["CELERY_BROKER_TRANSPORT_OPTIONS"]
        assert options["region"] == "eu-west-1"
    else:
        with pytest.raises(ImproperlyConfigured, match="Set SQS_REGION"):
            settings_with(monkeypatch, CELERY_BROKER_URL="sqs://")
