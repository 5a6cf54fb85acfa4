"""The session of an API client: sign in, show the session, sign out."""

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from allauth.account.internal.flows.login import AUTHENTICATION_METHODS_SESSION_KEY
from django.conf import settings
from django.contrib.sessions.models import Session
from django.test.client import MULTIPART_CONTENT

from portal.accounts.sessions import SessionStore
from portal.models import AuditEvent, Membership, Role, User
from tests.conftest import Cast, get_session
from tests.portal.conftest import ApiClient, audit_kinds

Authenticator = Callable[[User], Callable[[], str]]


def as_text(body: Any) -> str:
    """JSON without blanks: 110,000 keys of it are less than one mebibyte."""
    return json.dumps(body, separators=(",", ":"))


MANY_KEYS = {f"{number:x}": 1 for number in range(110_000)}
WRONG = {"detail": "The e-mail address or password is wrong.", "code": "invalid_credentials"}


def get_methods(api: ApiClient) -> list[str]:
    return [record["method"] for record in get_session(api)[AUTHENTICATION_METHODS_SESSION_KEY]]


def test_sign_in_answers_with_person_and_organizations(api: ApiClient, cast: Cast) -> None:
    response = api.sign_in(cast.consultant, cast.password)

    assert response.status_code == 200
    assert response.json() == {
        "user": {"email": "consultant@example.com", "name": "Consultant"},
        "organizations": [
            {"slug": "acme", "name": "Acme Robotics", "role": "operator"},
            {"slug": "globex", "name": "Globex", "role": "operator"},
        ],
    }
    assert api.get("/api/v1/auth/session").json() == response.json()


def test_sign_in_takes_the_address_in_any_case(api: ApiClient, cast: Cast) -> None:
    response = api.send("/api/v1/auth/login", {"email": "Operator@Example.com", "password": cast.password})

    assert response.status_code == 200


def test_sign_in_changes_the_session_key_and_records_the_method(api: ApiClient, cast: Cast) -> None:
    session = SessionStore()
    session["planted"] = True
    session.save()
    api.cookies[settings.SESSION_COOKIE_NAME] = session.cookie_key
    before = session.session_key

    api.sign_in(cast.operator, cast.password)

    assert get_session(api).session_key != before
    assert get_methods(api) == ["password"]


def test_sign_in_changes_the_csrf_token(api: ApiClient, cast: Cast) -> None:
    before = api.cookies["csrftoken"].value

    api.sign_in(cast.operator, cast.password)

    assert api.cookies["csrftoken"].value != before
    assert api.send("/api/v1/auth/logout", token=before).status_code == 403


def test_session_leaves_a_suspended_organization_out(api: ApiClient, cast: Cast) -> None:
    cast.acme.is_active = False
    cast.acme.save(update_fields=["is_active"])

    response = api.sign_in(cast.consultant, cast.password)

    assert [organization["slug"] for organization in response.json()["organizations"]] == ["globex"]


def test_session_shows_a_new_role_immediately(api: ApiClient, cast: Cast) -> None:
    api.sign_in(cast.operator, cast.password)

    Membership.objects.filter(user=cast.operator).update(role=Role.VIEWER)

    assert api.get("/api/v1/auth/session").json()["organizations"][0]["role"] == "viewer"


def test_anonymous_session_is_401_and_sets_the_csrf_cookie(db: None) -> None:
    api = ApiClient()
    api.cookies.clear()

    response = api.get("/api/v1/auth/session")

    assert response.status_code == 401
    assert response.json()["code"] == "not_authenticated"
    assert response.cookies["csrftoken"].value


def test_an_authorization_header_does_not_sign_in(api: ApiClient, cast: Cast) -> None:
    response = api.get("/api/v1/auth/session", headers={"Authorization": "Bearer something"})

    assert response.status_code == 401


def test_wrong_password_is_401(api: ApiClient, cast: Cast) -> None:
    response = api.sign_in(cast.operator, "wrong")

    assert (response.status_code, response.json()) == (401, WRONG)


def test_an_unknown_person_gets_the_wrong_password_answer(api: ApiClient, cast: Cast) -> None:
    response = api.send("/api/v1/auth/login", {"email": "nobody@example.com", "password": cast.password})

    assert (response.status_code, response.json()) == (401, WRONG)


def test_an_inactive_person_gets_the_wrong_password_answer(api: ApiClient, cast: Cast) -> None:
    cast.operator.is_active = False
    cast.operator.save(update_fields=["is_active"])

    response = api.sign_in(cast.operator, cast.password)

    assert (response.status_code, response.json()) == (401, WRONG)
    assert api.get("/api/v1/auth/session").status_code == 401


def test_deactivation_ends_a_session_immediately(api: ApiClient, cast: Cast) -> None:
    api.sign_in(cast.operator, cast.password)

    cast.operator.is_active = False
    cast.operator.save(update_fields=["is_active"])

    assert api.get("/api/v1/auth/session").status_code == 401


@pytest.mark.parametrize("token", ["", "a" * 32])
def test_sign_in_without_the_csrf_token_is_403(api: ApiClient, cast: Cast, token: str) -> None:
    credentials = {"email": cast.operator.email, "password": cast.password}

    response = api.send("/api/v1/auth/login", credentials, token=token)

    assert (response.status_code, response.json()["code"]) == (403, "csrf_failed")
    assert api.get("/api/v1/auth/session").status_code == 401


def test_over_https_origin_or_referer_is_asked_for(api: ApiClient, cast: Cast) -> None:
    credentials = {"email": cast.operator.email, "password": cast.password}

    def sign_in(**more: str) -> Any:
        proof = {"X-CSRFToken": api.cookies["csrftoken"].value, **more}
        return api.post("/api/v1/auth/login", credentials, "application/json", secure=True, headers=proof)

    refused = sign_in()

    assert (refused.status_code, refused.json()["code"]) == (403, "csrf_failed")
    assert "over HTTPS" in refused.json()["detail"]
    assert "Origin or Referer" in refused.json()["detail"]
    assert sign_in(Origin="https://evil.example").status_code == 403
    assert sign_in(Origin="https://testserver").status_code == 200
    assert sign_in(Referer="https://testserver/").status_code == 200


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"email", "password"}),
        ({"email": "operator@example.com"}, {"password"}),
        ({"email": "operator@example.com", "password": ["x"]}, {"password"}),
        ({"email": "no address", "password": "x"}, {"email"}),
        ({"email": "operator@example.com", "password": "x", "remember": True}, {"remember"}),
        ({"email": "operator@example.com", "password": "x\0"}, {"password"}),
        ({"email": "operator@example.com", "password": "x", "code": None}, {"code"}),
        ([], {"body"}),
    ],
)
def test_bad_input_is_400_and_names_the_field(api: ApiClient, db: None, body: Any, fields: set[str]) -> None:
    response = api.send("/api/v1/auth/login", body)

    assert response.status_code == 400
    assert set(response.json()["errors"]) == fields


@pytest.mark.parametrize("body", [MANY_KEYS, {"email": MANY_KEYS}, {"email": [{"deep": MANY_KEYS}]}, [MANY_KEYS]])
def test_an_object_of_many_keys_is_refused_at_little_cost(api: ApiClient, db: None, body: Any) -> None:
    text = as_text(body)
    started_at = time.process_time()

    response = api.send("/api/v1/auth/login", text)

    assert time.process_time() - started_at < 0.5  # 8 s before
    assert (response.status_code, response.json()["code"]) == (400, "too_many_keys")
    assert response.json()["detail"] == "The request has 110000 keys where at most 200 are accepted."


def test_repeated_keys_count_as_keys(api: ApiClient, db: None) -> None:
    response = api.send("/api/v1/auth/login", "{" + ",".join(['"a":1'] * 110_000) + "}")

    assert (response.status_code, response.json()["code"]) == (400, "too_many_keys")


def test_an_object_of_51_keys_is_refused_in_one_sentence(api: ApiClient, db: None) -> None:
    response = api.send("/api/v1/auth/login", {f"k{number}": 1 for number in range(51)})

    detail = "The request has 51 keys where at most 50 are accepted."
    assert (response.status_code, response.json()) == (400, {"detail": detail, "code": "too_many_keys"})


def test_at_most_ten_unknown_keys_are_named(api: ApiClient, db: None) -> None:
    response = api.send("/api/v1/auth/login", {f"{number:02}" * 1000: 1 for number in range(50)})

    errors = response.json()["errors"]
    assert (response.status_code, len(errors), len(response.content) < 4000) == (400, 10, True)
    assert set(errors) == {f"{number:02}" * 50 for number in range(10)}
    assert errors["00" * 50] == ["One of 50 unknown keys. This route takes code, email, password."]


def test_broken_json_is_400(api: ApiClient, db: None) -> None:
    assert api.send("/api/v1/auth/login", "{").status_code == 400


@pytest.mark.parametrize("body", ["{", as_text(MANY_KEYS)])
def test_a_wrong_token_is_refused_before_the_body_is_read(api: ApiClient, db: None, body: Any) -> None:
    response = api.send("/api/v1/auth/login", body, token="wrong")

    assert (response.status_code, response.json()["code"]) == (403, "csrf_failed")


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", MULTIPART_CONTENT])
def test_a_token_in_a_form_is_refused(api: ApiClient, db: None, content_type: str) -> None:
    fields = {"csrfmiddlewaretoken": api.cookies["csrftoken"].value, "email": "x"}
    body: Any = fields if content_type == MULTIPART_CONTENT else urlencode(fields)

    response = api.post("/api/v1/auth/login", body, content_type=content_type)

    assert (response.status_code, response.json()["code"]) == (403, "csrf_failed")


def test_a_form_is_415(api: ApiClient, db: None) -> None:
    token = {"X-CSRFToken": api.cookies["csrftoken"].value}

    assert api.post("/api/v1/auth/login", {"email": "x"}, headers=token).status_code == 415


def test_other_methods_are_405(api: ApiClient, cast: Cast) -> None:
    api.sign_in(cast.operator, cast.password)

    assert api.get("/api/v1/auth/login").status_code == 405
    assert api.get("/api/v1/auth/logout").status_code == 405
    assert api.send("/api/v1/auth/session").status_code == 405


def test_unknown_query_key_is_400(api: ApiClient, cast: Cast) -> None:
    api.sign_in(cast.operator, cast.password)

    assert api.get("/api/v1/auth/session?depth=1").status_code == 400


def test_five_failures_lock_only_that_person(api: ApiClient, cast: Cast) -> None:
    for _ in range(5):
        assert api.sign_in(cast.operator, "wrong").status_code == 401

    locked = api.sign_in(cast.operator, cast.password)

    assert (locked.status_code, locked.json()["code"]) == (429, "too_many_attempts")
    assert int(locked["Retry-After"]) >= 60
    assert api.sign_in(cast.viewer, cast.password).status_code == 200


def test_a_made_up_forwarding_header_does_not_unlock(api: ApiClient, cast: Cast) -> None:
    for number in range(10):
        api.send("/api/v1/auth/login", {"email": f"guess{number}@example.com", "password": "wrong"})

    response = api.post(
        "/api/v1/auth/login",
        {"email": cast.operator.email, "password": cast.password},
        content_type="application/json",
        headers={"X-CSRFToken": api.cookies["csrftoken"].value, "X-Forwarded-For": "203.0.113.9"},
    )

    assert response.status_code == 429


def test_requests_to_sign_in_have_a_rate_of_their_own(api: ApiClient, cast: Cast, settings: Any) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"login": "2/m/ip"}
    for _ in range(2):
        assert api.sign_in(cast.operator, cast.password).status_code == 200

    response = api.sign_in(cast.operator, cast.password)

    assert (response.status_code, response["Retry-After"]) == (429, "60")


@pytest.mark.parametrize(
    ("path", "body"), [("", "{"), ("", "[]"), ("", {"unknown": 1}), ("", as_text(MANY_KEYS)), ("?unknown=1", {})]
)
def test_an_attempt_counts_before_it_is_read(api: ApiClient, cast: Cast, settings: Any, path: str, body: Any) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"login": "2/m/ip"}
    for _ in range(2):
        assert api.send(f"/api/v1/auth/login{path}", body).status_code == 400

    assert api.send(f"/api/v1/auth/login{path}", body).status_code == 429
    assert api.sign_in(cast.operator, cast.password).status_code == 429


def test_a_person_with_two_factors_needs_the_code(api: ApiClient, cast: Cast, authenticator: Authenticator) -> None:
    code = authenticator(cast.operator)

    refused = api.sign_in(cast.operator, cast.password)
    accepted = api.sign_in(cast.operator, cast.password, code=code())

    assert (refused.status_code, refused.json()["code"]) == (401, "mfa_required")
    assert accepted.status_code == 200
    assert get_methods(api) == ["password", "mfa"]


def test_the_password_is_asked_for_before_the_code(api: ApiClient, cast: Cast, authenticator: Authenticator) -> None:
    code = authenticator(cast.operator)

    response = api.sign_in(cast.operator, "wrong", code=code())

    assert response.json() == WRONG


def test_a_missing_code_leaves_no_partial_sign_in(api: ApiClient, cast: Cast, authenticator: Authenticator) -> None:
    authenticator(cast.operator)

    api.sign_in(cast.operator, cast.password)

    assert not Session.objects.exists()
    assert api.get("/accounts/2fa/authenticate/").status_code == 302


def test_a_wrong_code_is_401(api: ApiClient, cast: Cast, authenticator: Authenticator) -> None:
    authenticator(cast.operator)

    response = api.sign_in(cast.operator, cast.password, code="000000")

    assert (response.status_code, response.json()["code"]) == (401, "invalid_code")
    assert api.get("/api/v1/auth/session").status_code == 401


def test_a_code_works_once(api: ApiClient, cast: Cast, authenticator: Authenticator) -> None:
    code = authenticator(cast.operator)()
    assert api.sign_in(cast.operator, cast.password, code=code).status_code == 200

    replayed = ApiClient().sign_in(cast.operator, cast.password, code=code)

    assert (replayed.status_code, replayed.json()["code"]) == (401, "invalid_code")


def test_a_recovery_code_works_once(
    api: ApiClient, cast: Cast, authenticator: Authenticator, recovery_codes: Callable[[User], list[str]]
) -> None:
    authenticator(cast.operator)
    code = recovery_codes(cast.operator)[0]

    first = api.sign_in(cast.operator, cast.password, code=code)
    second = ApiClient().sign_in(cast.operator, cast.password, code=code)

    assert (first.status_code, second.status_code) == (200, 401)


def test_wrong_codes_lock_the_person(api: ApiClient, cast: Cast, authenticator: Authenticator) -> None:
    code = authenticator(cast.operator)
    for _ in range(5):
        assert api.sign_in(cast.operator, cast.password, code="000000").status_code == 401

    response = api.sign_in(cast.operator, cast.password, code=code())

    assert response.status_code == 429
    assert int(response["Retry-After"]) >= 60


def test_a_code_without_two_factors_is_ignored(api: ApiClient, cast: Cast) -> None:
    assert api.sign_in(cast.operator, cast.password, code="123456").status_code == 200


def test_signing_in_as_another_signs_the_first_out(api: ApiClient, cast: Cast) -> None:
    api.sign_in(cast.operator, cast.password)
    first = get_session(api).session_key

    response = api.sign_in(cast.viewer, cast.password)

    assert response.json()["user"]["email"] == cast.viewer.email
    assert not get_session(api).exists(first)
    assert audit_kinds() == ["session.signed_in", "session.signed_out", "session.signed_in"]


def test_signing_in_again_changes_the_session_key(api: ApiClient, cast: Cast) -> None:
    api.sign_in(cast.operator, cast.password)
    first = get_session(api).session_key

    assert api.sign_in(cast.operator, cast.password).status_code == 200

    assert get_session(api).session_key != first


def test_a_refused_sign_in_keeps_the_current_session(api: ApiClient, cast: Cast, authenticator: Authenticator) -> None:
    authenticator(cast.viewer)
    api.sign_in(cast.operator, cast.password)

    assert api.sign_in(cast.viewer, "wrong").status_code == 401
    assert api.sign_in(cast.viewer, cast.password).status_code == 401
    assert api.sign_in(cast.viewer, cast.password, code="000000").status_code == 401

    assert api.get("/api/v1/auth/session").json()["user"]["email"] == cast.operator.email


def test_sign_out_ends_the_session(api: ApiClient, cast: Cast) -> None:
    api.sign_in(cast.operator, cast.password)
    stolen = api.cookies["sessionid"].value

    response = api.sign_out()

    assert (response.status_code, response.content) == (204, b"")
    api.cookies["sessionid"] = stolen
    assert api.get("/api/v1/auth/session").status_code == 401


def test_anonymous_sign_out_is_401(api: ApiClient, db: None) -> None:
    response = api.sign_out()

    assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")


def test_sign_out_without_the_csrf_token_is_403(api: ApiClient, cast: Cast) -> None:
    api.sign_in(cast.operator, cast.password)

    response = api.send("/api/v1/auth/logout", token="")

    assert (response.status_code, response.json()["code"]) == (403, "csrf_failed")
    assert api.get("/api/v1/auth/session").status_code == 200


def test_sign_out_takes_no_fields(api: ApiClient, cast: Cast) -> None:
    api.sign_in(cast.operator, cast.password)

    assert api.send("/api/v1/auth/logout", {"all": True}).status_code == 400


@pytest.mark.parametrize("path", ["/api/v1/auth/login?debug=1", "/api/v1/auth/logout?debug=1"])
def test_an_unknown_query_key_is_named(api: ApiClient, cast: Cast, path: str) -> None:
    api.sign_in(cast.operator, cast.password)

    response = api.send(path)

    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert list(response.json()["errors"]) == ["debug"]
    assert api.get("/api/v1/auth/session").status_code == 200


def test_the_longest_address_can_sign_in(api: ApiClient, cast: Cast) -> None:
    User.objects.filter(pk=cast.operator.pk).update(email=f"operator@{'a.' * 120}io")
    cast.operator.refresh_from_db()

    assert api.sign_in(cast.operator, cast.password).status_code == 200
    assert AuditEvent.objects.get().subject == cast.operator.email


def test_sign_in_and_out_are_in_the_audit_trail(api: ApiClient, cast: Cast, authenticator: Authenticator) -> None:
    code = authenticator(cast.operator)

    api.sign_in(cast.operator, cast.password, code=code())
    api.sign_out()

    signed_out, signed_in = AuditEvent.objects.all()
    assert (signed_in.kind, signed_in.data) == ("session.signed_in", {"methods": ["password", "mfa"]})
    assert (signed_in.organization, signed_in.actor, signed_in.subject) == (None, cast.operator, cast.operator.email)
    assert (signed_out.kind, signed_out.actor) == ("session.signed_out", cast.operator)


def test_a_missing_code_is_no_failed_sign_in(api: ApiClient, cast: Cast, authenticator: Authenticator) -> None:
    authenticator(cast.viewer)

    api.sign_in(cast.viewer, cast.password)

    assert audit_kinds() == []


def test_sign_in_leaves_no_message_for_the_next_page(api: ApiClient, cast: Cast) -> None:
    api.sign_in(cast.operator, cast.password)
    api.sign_out()

    assert "messages" not in api.cookies
    assert b"signed out" not in api.get("/accounts/login/").content
