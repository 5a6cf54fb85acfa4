"""Errors as JSON for clients and as a page for people, with the request id and without internals."""

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from django.conf import settings
from django.test import Client
from django.test.client import MULTIPART_CONTENT

from portal.models import User
from portal.request_id import RequestIdFilter
from tests.conftest import Cast
from tests.portal.urls_that_fail import FAILURES

SignIn = Callable[[User], Client]

STATUSES = {
    "defect": (500, "internal_error"),
    "database": (503, "dependency_down"),
    "connection": (503, "dependency_down"),
    "redis": (503, "dependency_down"),
    "busy": (429, "busy"),
    "conflict": (409, "upgrade_in_progress"),
    "data": (400, "bad_request"),
    "missing": (404, "not_found"),
    "denied": (403, "forbidden"),
}


@pytest.fixture
def client(settings: Any, db: None) -> Client:
    settings.ROOT_URLCONF = "tests.portal.urls_that_fail"
    return Client(raise_request_exception=False)


def assert_nothing_inside(text: str) -> None:
    for inside in ("secret", "Traceback", str(settings.BASE_DIR), ".py", "Error("):
        assert inside not in text


def test_every_failure_is_reported() -> None:
    assert STATUSES.keys() == FAILURES.keys()


@pytest.mark.parametrize("failure", STATUSES)
def test_a_client_gets_json(client: Client, failure: str) -> None:
    status, code = STATUSES[failure]

    response = client.get(f"/api/v1/fail/{failure}")

    body = response.json()
    assert (response.status_code, body["code"]) == (status, code)
    assert isinstance(body["detail"], str)
    assert_nothing_inside(response.content.decode())
    assert ("Retry-After" in response.headers) == (status in (429, 503))


@pytest.mark.parametrize("failure", STATUSES)
def test_a_person_gets_a_page_with_the_requests_id(client: Client, failure: str) -> None:
    status, code = STATUSES[failure]

    response = client.get(f"/fail/{failure}/", headers={"X-Request-ID": "request-of-mine"})

    text = response.content.decode()
    assert response.status_code == status
    assert response.headers["Content-Type"].startswith("text/html")
    assert f"{status} {code}" in text
    assert "request-of-mine" in text
    assert_nothing_inside(re.sub(r"<(?:script|link)[^>]*>", "", text))
    assert ("Retry-After" in response.headers) == (status in (429, 503))


def test_extra_fields_of_an_error_are_in_the_json(client: Client) -> None:
    assert client.get("/api/v1/fail/conflict").json()["upgrade_id"] == "upgrade-1"
    assert client.get("/api/v1/fail/busy").headers["Retry-After"] == "17"
    assert client.get("/fail/busy/").headers["Retry-After"] == "17"


def test_the_outage_page_makes_no_query(client: Client, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        text = client.get("/fail/database/").content.decode()

    assert "Try again" in text


def test_a_defect_names_its_id_to_the_client(client: Client) -> None:
    response = client.get("/api/v1/fail/defect", headers={"X-Request-ID": "request-of-mine"})

    assert "request-of-mine" in response.json()["detail"]


@pytest.mark.parametrize("signed_in", [False, True])
def test_an_unknown_url_is_404(cast: Cast, client_for: SignIn, signed_in: bool) -> None:
    client = client_for(cast.viewer) if signed_in else Client()

    page, api = client.get("/nowhere/"), client.get("/api/v1/nowhere")

    assert (page.status_code, api.status_code) == (404, 404)
    assert api.json() == {"detail": "This does not exist, or you do not have access to it.", "code": "not_found"}
    assert "This does not exist, or you do not have access to it." in page.content.decode()


def test_a_form_over_one_mebibyte_is_413(cast: Cast, client_for: SignIn) -> None:
    response = client_for(cast.operator).post(
        "/o/acme/upgrades/new", "reason=" + "x" * 1024 * 1024, content_type="application/x-www-form-urlencoded"
    )

    assert response.status_code == 413
    assert "larger than 1 MiB" in response.content.decode()


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", MULTIPART_CONTENT])
@pytest.mark.parametrize("path", ["/accounts/login/", "/o/acme/upgrades/new"])
def test_a_form_of_too_many_fields_is_400(cast: Cast, client_for: SignIn, path: str, content_type: str) -> None:
    fields = {f"k{number}": "1" for number in range(1001)}
    body: Any = urlencode(fields) if content_type != MULTIPART_CONTENT else fields
    client = client_for(cast.operator) if "upgrades" in path else Client(enforce_csrf_checks=True)
    client.get(path)

    response = client.post(path, body, content_type=content_type)

    assert response.status_code == 400
    assert "The request has more than 1000 fields." in response.content.decode()


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        ("/o/acme/upgrades/?", "The request has more than 1000 fields."),
        ("/api/v1/deployments/upgrades?", "The request has more than 1000 fields."),
        ("/api/v1/deployments/upgrades?", "The request has 900 keys where at most 50 are accepted."),
    ],
)
def test_a_query_of_too_many_keys_is_400(cast: Cast, client_for: SignIn, path: str, detail: str) -> None:
    count = 900 if "900" in detail else 1001

    response = client_for(cast.operator).get(path + "&".join(f"k{number}=1" for number in range(count)))

    assert (response.status_code, detail in response.content.decode()) == (400, True)


def test_ten_of_the_repeated_query_keys_are_named(cast: Cast, client_for: SignIn) -> None:
    query = "&".join(f"k{number}=1&k{number}=2" for number in range(50))

    response = client_for(cast.operator).get(f"/api/v1/deployments/upgrades?{query}")

    assert (response.status_code, len(response.json()["errors"])) == (400, 10)


# --- the request's id ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/livez", "/accounts/login/", "/nowhere/", "/api/v1/deployments/versions"])
def test_the_id_is_echoed_or_generated(db: None, path: str) -> None:
    given = Client().get(path, headers={"X-Request-ID": "Given-1.2_3"})
    made = Client().get(path)

    assert given.headers["X-Request-ID"] == "Given-1.2_3"
    assert re.fullmatch("[0-9a-f]{32}", made.headers["X-Request-ID"])


@pytest.mark.parametrize(
    "hostile", ["a\nlevel=ERROR", "a\r\nSet-Cookie: x=1", "x" * 300, "x" * 65, "<b>", "", " ", "é", "a b"]
)
def test_a_hostile_id_is_replaced(hostile: str) -> None:
    response = Client().get("/livez", headers={"X-Request-ID": hostile})

    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])


def test_djangos_log_line_of_a_refusal_has_the_id(db: None, caplog: pytest.LogCaptureFixture) -> None:
    Client().get("/api/v1/nowhere", headers={"X-Request-ID": "request-of-mine"})

    (line,) = [record for record in caplog.records if record.name == "django.request"]
    RequestIdFilter().filter(line)
    assert line.__dict__["request_id"] == "request-of-mine"


def test_ids_do_not_leak_from_one_request_to_the_next(client: Client) -> None:
    client.get("/api/v1/fail/defect", headers={"X-Request-ID": "the-first"})

    assert "the-first" not in json.dumps(client.get("/api/v1/fail/defect").json())
