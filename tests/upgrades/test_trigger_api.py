"""POST /api/v1/deployments/upgrade: requests, answers and refusals."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.idempotency import IdempotencyKey
from portal.models import AuditEvent, User
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import UPGRADE, assert_refused, make_upgrade, post_json
from upgrades.models import Upgrade
from upgrades.states import Status

SignIn = Callable[[User], Client]

FOUR = "agent, orchestrator, customer-portal, all"


@pytest.fixture
def client(cast: Cast, platform: LocalAws, client_for: SignIn) -> Client:
    """Return the operator's client, with AWS available."""
    return client_for(cast.operator)


def trigger(client: Client, body: Any = None, **headers: str) -> Any:
    return post_json(client, UPGRADE, {"service": "agent"} if body is None else body, **headers)


def assert_nothing_written() -> None:
    assert not Upgrade.objects.exists()
    assert not AuditEvent.objects.exists()
    assert not IdempotencyKey.objects.exists()


# --- it works ------------------------------------------------------------------------------------------------------


def test_202_with_the_documented_body_and_location(cast: Cast, client: Client) -> None:
    response = trigger(client, {"service": "all", "version": "latest", "force_new_deployment": True, "reason": "OPS-1"})

    assert response.status_code == 202
    body = response.json()
    upgrade = Upgrade.objects.get()
    assert re.fullmatch(r"upgrade-\d{4}-\d{4}-\d{6}-[0-9a-f]{6}", body["upgrade_id"])
    assert body == {
        "success": True,
        "upgrade_id": upgrade.upgrade_id,
        "status": "PENDING",
        "organization": "acme",
        "services": [
            {
                "service": service,
                "service_name": f"{cast.acme.deployment_stack}-{service}-service",
                "status": "PENDING",
            }
            for service in ("agent", "orchestrator", "customer-portal")
        ],
        "message": "Recorded: agent, then orchestrator, then customer-portal. "
        "Accepted does not mean done: poll status_url until the status is final.",
        "estimated_time": "2-5 minutes",
        "estimated_seconds": None,
        "status_url": f"{UPGRADE}/{upgrade.upgrade_id}",
    }
    assert response.headers["Location"] == body["status_url"]
    assert client.get(body["status_url"]).status_code == 200


def test_omitted_fields_have_defaults(client: Client) -> None:
    trigger(client)

    upgrade = Upgrade.objects.get()
    assert (upgrade.version, upgrade.force_new_deployment, upgrade.reason) == ("latest", False, "")


def test_the_estimate_comes_from_the_organizations_own_past(cast: Cast, client: Client) -> None:
    make_upgrade(cast.acme, by=cast.operator)  # four minutes
    make_upgrade(cast.globex, by=cast.outsider, target="all")

    assert trigger(client).json()["estimated_time"] == "about 4 minutes"
    assert trigger(client, {"service": "orchestrator"}).json()["estimated_time"] == "2-5 minutes"


def test_an_unrelated_authorization_header_is_ignored(client: Client) -> None:
    assert trigger(client, Authorization="Bearer of-something-else").status_code == 202


def test_a_charset_beside_the_content_type_is_fine(client: Client) -> None:
    response = client.post(UPGRADE, '{"service": "agent"}', content_type="application/json; charset=utf-8")

    assert response.status_code == 202


def test_the_same_key_gives_the_same_bytes_even_after_the_end(cast: Cast, client: Client) -> None:
    first = trigger(client, {"service": "agent", "reason": "é"}, Idempotency_Key="once")
    Upgrade.objects.update(status=Status.SUCCESS, success_count=1)
    Upgrade.objects.get().rollouts.update(phase="done", status=Status.SUCCESS)
    make_upgrade(cast.acme, by=cast.operator)  # changes the estimate of any later upgrade

    again = trigger(client, {"reason": "é", "service": "agent", "version": "latest"}, Idempotency_Key="once")

    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["Location"] == first.headers["Location"]


def test_without_a_key_no_key_is_stored(client: Client) -> None:
    trigger(client)

    assert not IdempotencyKey.objects.exists()


# --- which organization --------------------------------------------------------------------------------------------


def test_a_consultant_names_the_organization(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    response = trigger(client_for(cast.consultant), X_Organization="globex")

    assert (response.status_code, response.json()["organization"]) == (202, "globex")


def test_a_consultant_without_the_header_gets_400(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    body = assert_refused(trigger(client_for(cast.consultant)), 400, "organization_required")

    assert "X-Organization" in body["detail"]


@pytest.mark.parametrize("slug", ["initech", "nowhere", "", "ACME", "acme'--", "x" * 5000])
def test_a_foreign_slug_gets_the_answer_of_an_unknown_one(
    cast: Cast, platform: LocalAws, client_for: SignIn, slug: str
) -> None:
    client = client_for(cast.consultant)
    unknown = trigger(client, X_Organization="no-such-organization")

    response = trigger(client, X_Organization=slug)

    assert_refused(response, 404, "not_found")
    assert response.content == unknown.content


def test_a_slug_with_a_nul_is_refused(client: Client) -> None:
    assert_refused(trigger(client, X_Organization="ac\x00me"), 400, "bad_request")


def test_a_user_without_organization_gets_404(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    body = assert_refused(trigger(client_for(cast.stranger)), 404, "not_found")

    assert "not a member of any organization" in body["detail"]


# --- who may not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"HX-Request": "true"}, {"Accept": "text/html"}])
def test_anonymous_gets_401_as_json_and_no_redirect(cast: Cast, headers: dict[str, str]) -> None:
    response = Client().post(UPGRADE, "{}", content_type="application/json", headers=headers)

    assert_refused(response, 401, "not_authenticated")
    assert "Location" not in response.headers


def test_without_csrf_token_gets_403_as_json(cast: Cast, platform: LocalAws) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(cast.operator, backend="portal.accounts.person.AuthenticationBackend")

    body = assert_refused(trigger(client), 403, "csrf_failed")

    assert "X-CSRFToken" in body["detail"]
    assert not Upgrade.objects.exists()


def test_with_csrf_token_it_is_accepted(cast: Cast, platform: LocalAws) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(cast.operator, backend="portal.accounts.person.AuthenticationBackend")
    client.get("/api/v1/auth/session")

    assert trigger(client, X_CSRFToken=client.cookies["csrftoken"].value).status_code == 202


def test_the_token_of_another_session_is_refused(cast: Cast, platform: LocalAws) -> None:
    client, other = Client(enforce_csrf_checks=True), Client()
    client.force_login(cast.operator, backend="portal.accounts.person.AuthenticationBackend")
    client.get("/api/v1/auth/session")
    other.get("/api/v1/auth/session")

    assert_refused(trigger(client, X_CSRFToken=other.cookies["csrftoken"].value), 403, "csrf_failed")


# --- wrong state ---------------------------------------------------------------------------------------------------


def test_a_conflict_names_the_blocker_by_its_id(cast: Cast, client: Client) -> None:
    blocker = make_upgrade(cast.acme, by=cast.admin, statuses=[Status.IN_PROGRESS])

    body = assert_refused(trigger(client, {"service": "all"}), 409, "upgrade_in_progress")

    assert body["upgrade_id"] == blocker.upgrade_id


def test_another_request_with_the_same_key_is_a_mismatch(client: Client) -> None:
    trigger(client, {"service": "agent"}, Idempotency_Key="once")

    response = trigger(client, {"service": "agent", "force_new_deployment": True}, Idempotency_Key="once")

    assert_refused(response, 422, "idempotency_mismatch")


@pytest.mark.parametrize(
    ("person", "body", "code"),
    [
        ("newcomer", {"service": "all"}, "no_cluster"),
        ("operator", {"service": "all", "version": "v1"}, "version_unavailable"),
    ],
)
def test_an_impossible_request_has_its_own_code(
    cast: Cast, platform: LocalAws, client_for: SignIn, person: str, body: dict[str, Any], code: str
) -> None:
    assert_refused(trigger(client_for(getattr(cast, person)), body), 400, code)


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["database", "", "Agent", "agent ", None, 1, True, [], ["agent"], {"a": 1}])
def test_an_unknown_service_gets_the_four_targets(client: Client, service: Any) -> None:
    body = assert_refused(trigger(client, {"service": service}), 400, "invalid")

    assert list(body["errors"]) == ["service"]
    assert FOUR in body["errors"]["service"][0]
    assert_nothing_written()


def test_a_missing_service_gets_the_four_targets(client: Client) -> None:
    body = assert_refused(trigger(client, {}), 400, "invalid")

    assert FOUR in body["errors"]["service"][0]
    assert_nothing_written()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", None),
        ("version", 9),
        ("version", ["latest"]),
        ("version", "a\ud800"),
        ("force_new_deployment", None),
        ("force_new_deployment", "yes"),
        ("force_new_deployment", "false"),
        ("force_new_deployment", 1),
        ("force_new_deployment", []),
        ("reason", None),
        ("reason", 5),
        ("reason", {"a": 1}),
        ("reason", "a\ud800"),
        ("reason", "a\udfff\x00"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(client: Client, field: str, value: Any) -> None:
    body = assert_refused(trigger(client, {"service": "agent", field: value}), 400, "invalid")

    assert list(body["errors"]) == [field]
    assert field in body["detail"]
    assert_nothing_written()


@pytest.mark.parametrize(
    "name",
    ["organization", "organization_id", "Service", "id", "initiated_by", "status", "kind", "", "a\x00", "\ud800"],
)
def test_an_unknown_field_is_named(client: Client, name: str) -> None:
    body = assert_refused(trigger(client, {"service": "agent", name: "globex"}), 400, "invalid")

    (named,) = body["errors"]
    assert named == name.encode("utf-8", "backslashreplace").decode()
    assert_nothing_written()


def test_a_long_unknown_field_is_not_echoed_in_full(client: Client) -> None:
    assert len(trigger(client, {"x" * 100_000: 1}).content) < 1000


@pytest.mark.parametrize("query", ["service=agent", "x=1", "organization=globex"])
def test_an_unknown_query_key_is_named(client: Client, query: str) -> None:
    body = assert_refused(post_json(client, f"{UPGRADE}?{query}", {"service": "agent"}), 400, "invalid")

    assert list(body["errors"]) == [query.partition("=")[0]]


@pytest.mark.parametrize("text", ["{", "", "service=agent", '{"service": NaN}', b"\xff\xfe", "[" * 100_000])
def test_malformed_json_is_400(client: Client, text: Any) -> None:
    response = client.post(UPGRADE, text, content_type="application/json")

    assert response.status_code == 400
    assert response.json()["code"] in ("parse_error", "invalid")


@pytest.mark.parametrize("text", ["[]", '[{"service": "agent"}]', '"agent"', "5", "null", "true"])
def test_json_that_is_not_an_object_is_400(client: Client, text: str) -> None:
    assert_refused(client.post(UPGRADE, text, content_type="application/json"), 400, "invalid")
    assert_nothing_written()


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "application/xml"]
)
def test_another_content_type_is_415(client: Client, content_type: str) -> None:
    response = client.post(UPGRADE, b"service=agent", content_type=content_type)

    assert_refused(response, 415, "unsupported_media_type")
    assert_nothing_written()


def test_a_body_over_one_mebibyte_is_413(client: Client) -> None:
    assert_refused(trigger(client, {"service": "agent", "reason": "x" * 1024 * 1024}), 413, "too_large")
    assert_nothing_written()


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x00b", "a\nb"])
def test_an_invalid_idempotency_key_is_400(client: Client, key: str) -> None:
    assert_refused(trigger(client, Idempotency_Key=key), 400, "bad_idempotency_key")
    assert_nothing_written()


def test_a_key_of_255_characters_is_accepted(client: Client) -> None:
    assert trigger(client, Idempotency_Key="x" * 255).status_code == 202


@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete"])
def test_another_method_is_405(client: Client, method: str) -> None:
    response = getattr(client, method)(UPGRADE)

    assert response.status_code == 405
    assert set(response.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}


def test_a_trailing_slash_is_404_without_redirect(client: Client) -> None:
    response = post_json(client, f"{UPGRADE}/", {"service": "agent"})

    assert_refused(response, 404, "not_found")


# --- end to end ----------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_an_accepted_upgrade_is_carried_out(cast: Cast, engine: Engine, client_for: SignIn) -> None:
    client = client_for(cast.operator)
    accepted = trigger(client, {"service": "agent", "force_new_deployment": True}).json()

    engine.run(Upgrade.objects.get(upgrade_id=accepted["upgrade_id"]))

    assert client.get(accepted["status_url"]).json()["status"] == "SUCCESS"
