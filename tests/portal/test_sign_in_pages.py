"""The account pages: sign-in, two-factor authentication, passwords, devices."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator as AuthenticatorRow
from allauth.mfa.totp.internal import auth as totp
from django.contrib.sessions.models import Session
from django.core import mail
from django.test import Client

from portal.models import AuditEvent, User
from tests.conftest import Cast, get_session
from tests.portal.conftest import audit_kinds, get_main

Authenticator = Callable[[User], Callable[[], str]]
SignedIn = Callable[[User], Client]

ANONYMOUS_PAGES = [
    "/accounts/login/",
    "/accounts/signup/",
    "/accounts/inactive/",
    "/accounts/password/reset/",
    "/accounts/password/reset/done/",
    "/accounts/password/reset/key/done/",
    "/accounts/password/reset/key/1-none/",
]
SIGNED_IN_PAGES = [
    "/account/",
    "/accounts/logout/",
    "/accounts/reauthenticate/",
    "/accounts/password/change/",
    "/accounts/sessions/",
    "/accounts/2fa/",
    "/accounts/2fa/webauthn/",
]
PAGES_AFTER_REAUTHENTICATION = [
    "/accounts/2fa/webauthn/add/",
    "/accounts/2fa/totp/activate/",
    "/accounts/2fa/totp/deactivate/",
    "/accounts/2fa/recovery-codes/",
    "/accounts/2fa/recovery-codes/generate/",
    "/accounts/2fa/reauthenticate/",
    "/accounts/2fa/webauthn/reauthenticate/",
]


def sign_in(client: Client, email: str, password: str, **more: Any) -> Any:
    return client.post("/accounts/login/", {"login": email, "password": password, **more})


def reauthenticate(client: Client, password: str) -> None:
    assert client.post("/accounts/reauthenticate/", {"password": password}).status_code == 302


def assert_strict(response: Any) -> None:
    """Check that the page has our layout and nothing that the Content-Security-Policy would refuse."""
    page = response.content.decode()
    assert response.status_code == 200
    assert 'href="/static/portal.css"' in page
    assert "style=" not in page
    assert "<style" not in page
    assert not re.search(r"\son\w+=", page)
    for script in re.findall(r"<script[^>]*>", page):
        assert 'src="/static/' in script or 'type="application/json"' in script


def test_sign_in_leads_to_where_the_person_was_going(client: Client, cast: Cast) -> None:
    away = client.get("/o/acme/")
    page = client.get(away["Location"])
    response = sign_in(client, cast.operator.email, cast.password, next="/o/acme/")

    assert away["Location"] == "/accounts/login/?next=%2Fo%2Facme%2F"
    assert '<input type="hidden" name="next" value="/o/acme/">' in page.content.decode()
    assert (response.status_code, response["Location"]) == (302, "/o/acme/")


def test_sign_in_never_leads_to_another_site(client: Client, cast: Cast) -> None:
    response = sign_in(client, cast.operator.email, cast.password, next="https://evil.example/")

    assert response["Location"] == "/"


def test_sign_in_form_is_made_for_password_managers(client: Client, db: None) -> None:
    page = get_main(client.get("/accounts/login/"))

    assert 'autocomplete="username"' in page
    assert 'autocomplete="current-password"' in page
    assert '<label for="id_login">' in page
    assert '<label for="id_password">' in page


def test_sign_in_offers_a_passkey_but_no_sign_up(client: Client, db: None) -> None:
    page = get_main(client.get("/accounts/login/"))

    assert "Sign in with a passkey" in page
    assert "/accounts/signup/" not in page


def test_a_passkey_sign_in_begins_with_a_challenge(client: Client, db: None) -> None:
    response = client.get("/accounts/2fa/webauthn/login/", headers={"Accept": "application/json"})

    assert response.json()["request_options"]["publicKey"]["challenge"]


def test_challenges_without_an_answer_are_limited(client: Client, db: None, time_machine: Any) -> None:
    """Each one stores a session."""
    time_machine.move_to("2026-11-28T10:00:00Z", tick=False)
    statuses = [
        Client().get("/accounts/2fa/webauthn/login/", headers={"Accept": "application/json"}).status_code
        for _ in range(40)
    ]

    assert statuses == [200] * 30 + [429] * 10
    assert Session.objects.count() == 30


def test_wrong_password_says_so(client: Client, cast: Cast) -> None:
    response = sign_in(client, cast.operator.email, "wrong")

    assert "are not correct" in get_main(response)
    assert audit_kinds() == ["session.sign_in_failed"]


def test_an_inactive_person_sees_why(client: Client, cast: Cast) -> None:
    cast.operator.is_active = False
    cast.operator.save(update_fields=["is_active"])

    response = sign_in(client, cast.operator.email, cast.password)

    assert response["Location"] == "/accounts/inactive/"
    assert client.get("/account/").status_code == 302


def test_five_failures_lock_the_person(client: Client, cast: Cast) -> None:
    for _ in range(5):
        sign_in(client, cast.operator.email, "wrong")

    response = sign_in(client, cast.operator.email, cast.password)

    assert "Too many failed login attempts" in get_main(response)


def test_too_many_requests_get_our_page(client: Client, cast: Cast, settings: Any) -> None:
    settings.ACCOUNT_RATE_LIMITS = {"login": "1/m/ip"}
    sign_in(client, cast.operator.email, "wrong")

    response = sign_in(client, cast.operator.email, cast.password)

    assert (response.status_code, response["Retry-After"]) == (429, "60")
    assert "too_many_requests" in get_main(response)


def test_sign_in_and_out_are_in_the_audit_trail(client: Client, cast: Cast) -> None:
    sign_in(client, cast.operator.email, cast.password)
    client.post("/accounts/logout/")

    assert audit_kinds() == ["session.signed_in", "session.signed_out"]
    assert {event.actor for event in AuditEvent.objects.all()} == {cast.operator}


def test_sign_out_takes_a_post(client_for: SignedIn, cast: Cast) -> None:
    client = client_for(cast.operator)

    asked = client.get("/accounts/logout/")

    assert "Are you sure" in get_main(asked)
    assert client.get("/account/").status_code == 200


def test_anonymous_sign_out_leads_to_the_start(client: Client, db: None) -> None:
    assert client.post("/accounts/logout/")["Location"] == "/"
    assert audit_kinds() == []


def test_sign_up_is_closed(client: Client, db: None) -> None:
    credentials = {"email": "new@example.com", "password1": "a-long-password-1", "password2": "a-long-password-1"}

    response = client.post("/accounts/signup/", credentials)

    assert "Sign-up is closed" in get_main(response)
    assert not User.objects.exists()


@pytest.mark.parametrize("path", ANONYMOUS_PAGES)
def test_anonymous_page_is_ours_and_keeps_the_policy(client: Client, db: None, path: str) -> None:
    assert_strict(client.get(path))


@pytest.mark.parametrize("path", SIGNED_IN_PAGES)
def test_page_of_the_account_is_ours_and_keeps_the_policy(client_for: SignedIn, cast: Cast, path: str) -> None:
    assert_strict(client_for(cast.operator).get(path))


@pytest.mark.parametrize("path", PAGES_AFTER_REAUTHENTICATION)
def test_reauthenticated_page_is_ours_and_keeps_the_policy(
    client_for: SignedIn,
    cast: Cast,
    authenticator: Authenticator,
    recovery_codes: Callable[[User], list[str]],
    path: str,
) -> None:
    if path != "/accounts/2fa/totp/activate/":
        authenticator(cast.operator)
        recovery_codes(cast.operator)
    client = client_for(cast.operator)
    reauthenticate(client, cast.password)

    assert_strict(client.get(path, follow=True))


@pytest.mark.parametrize("path", [*SIGNED_IN_PAGES, *PAGES_AFTER_REAUTHENTICATION])
def test_anonymous_is_sent_to_sign_in(client: Client, db: None, path: str) -> None:
    response = client.get(path)

    assert response.status_code == 302
    assert response["Location"].startswith(("/accounts/login/", "/"))
    assert client.get(path, headers={"HX-Request": "true"}).status_code in (302, 401)


@pytest.mark.parametrize("path", ["/accounts/email/", "/accounts/confirm-email/", "/accounts/login/code/confirm/"])
def test_people_cannot_change_their_own_address(client_for: SignedIn, cast: Cast, path: str) -> None:
    response = client_for(cast.operator).post(path, {"action_add": "", "email": "other@example.com"})

    assert response.status_code == 404
    assert not EmailAddress.objects.exists()


def test_account_page_shows_the_person_and_their_roles(client_for: SignedIn, cast: Cast) -> None:
    page = get_main(client_for(cast.consultant).get("/account/"))

    assert cast.consultant.email in page
    assert re.findall(r'<a href="/o/(\w+)/">', page) == ["acme", "globex"]
    assert page.count("Operator") == 2
    assert "/admin/" not in page


def test_account_page_leads_staff_to_the_admin(client_for: SignedIn, cast: Cast) -> None:
    page = get_main(client_for(cast.staff).get("/account/"))

    assert 'href="/admin/"' in page
    assert "not a member of any organization" in page


def test_the_folder_of_the_pages_leads_to_the_account(client_for: SignedIn, cast: Cast) -> None:
    assert client_for(cast.operator).get("/accounts/")["Location"] == "/account/"


def test_an_authenticator_app_is_set_up_and_then_asked_for(client: Client, cast: Cast, settings: Any) -> None:
    settings.MFA_TOTP_TOLERANCE = 1
    sign_in(client, cast.operator.email, cast.password)
    asked = client.get("/accounts/2fa/totp/activate/")
    reauthenticate(client, cast.password)
    page = get_main(client.get("/accounts/2fa/totp/activate/"))
    secret = get_session(client)["mfa.totp.secret"]
    earlier, _, later = (totp.hotp_value(secret, counter) for counter in totp.yield_hotp_counters_from_time())

    client.post("/accounts/2fa/totp/activate/", {"code": totp.format_hotp_value(earlier)})
    client.post("/accounts/logout/")
    halfway = sign_in(client, cast.operator.email, cast.password, next="/account/")
    still_out = client.get("/account/")
    challenge = get_main(client.get("/accounts/2fa/authenticate/"))
    done = client.post("/accounts/2fa/authenticate/", {"code": totp.format_hotp_value(later)})

    assert asked["Location"].startswith("/accounts/reauthenticate/")
    assert secret in page
    assert 'src="data:image/svg+xml' in page
    assert halfway["Location"] == "/accounts/2fa/authenticate/"
    assert still_out["Location"].startswith("/accounts/login/")
    assert 'autocomplete="one-time-code"' in challenge
    assert done["Location"] == "/account/"
    assert AuditEvent.objects.first().data == {"methods": ["password", "mfa"]}


def test_the_second_step_is_ours_and_keeps_the_policy(client: Client, cast: Cast, authenticator: Authenticator) -> None:
    authenticator(cast.operator)
    sign_in(client, cast.operator.email, cast.password)

    assert_strict(client.get("/accounts/2fa/authenticate/"))


def test_activating_the_app_gives_recovery_codes(client_for: SignedIn, cast: Cast, settings: Any) -> None:
    settings.MFA_TOTP_TOLERANCE = 1
    client = client_for(cast.operator)
    reauthenticate(client, cast.password)
    client.get("/accounts/2fa/totp/activate/")
    code = totp.format_hotp_value(
        totp.hotp_value(get_session(client)["mfa.totp.secret"], next(totp.yield_hotp_counters_from_time()) + 1)
    )

    response = client.post("/accounts/2fa/totp/activate/", {"code": code}, follow=True)

    assert "Recovery codes" in get_main(response)
    assert set(AuthenticatorRow.objects.values_list("type", flat=True)) == {"totp", "recovery_codes"}


def test_a_forgotten_password_is_reset_by_email(client: Client, cast: Cast) -> None:
    client.post("/accounts/password/reset/", {"email": cast.operator.email})
    link = re.search(r"http://testserver(/\S+)", mail.outbox[0].body)
    assert link
    form = client.get(link[1], follow=True)
    new = {"password1": "another-long-password-1", "password2": "another-long-password-1"}

    client.post(form.redirect_chain[-1][0], new)

    assert_strict(form)
    assert mail.outbox[0].to == [cast.operator.email]
    assert sign_in(client, cast.operator.email, "another-long-password-1").status_code == 302


def test_a_reset_for_an_unknown_address_reveals_nothing(client: Client, cast: Cast) -> None:
    known = client.post("/accounts/password/reset/", {"email": cast.operator.email})
    unknown = client.post("/accounts/password/reset/", {"email": "nobody@example.com"})

    assert known["Location"] == unknown["Location"] == "/accounts/password/reset/done/"


def test_an_address_that_staff_have_changed_leads_nowhere(client: Client, cast: Cast) -> None:
    """Also if a password was reset before: allauth's own link generator would keep accepting the old address."""
    old = cast.operator.email
    sign_in(client, old, cast.password)
    client.post("/accounts/logout/")
    client.post("/accounts/password/reset/", {"email": old})
    User.objects.filter(pk=cast.operator.pk).update(email="changed@example.com")

    client.post("/accounts/password/reset/", {"email": old})

    first, second = (told.body for told in mail.outbox)
    assert "/accounts/password/reset/key/" in first
    assert "/accounts/password/reset/key/" not in second
    assert "are not correct" in get_main(sign_in(client, old, cast.password))
    assert not EmailAddress.objects.exists()


def test_a_changed_password_signs_every_device_out(client_for: SignedIn, cast: Cast) -> None:
    here, there = client_for(cast.operator), client_for(cast.operator)
    new = {
        "oldpassword": cast.password,
        "password1": "another-long-password-1",
        "password2": "another-long-password-1",
    }

    here.post("/accounts/password/change/", new)

    assert here.get("/account/").status_code == 302
    assert there.get("/account/").status_code == 302


def test_a_weak_password_is_refused_beside_its_field(client_for: SignedIn, cast: Cast) -> None:
    new = {"oldpassword": cast.password, "password1": "short", "password2": "short"}

    page = get_main(client_for(cast.operator).post("/accounts/password/change/", new))

    assert 'id="id_password1_error"' in page
    assert "at least 12 characters" in page


def test_other_devices_are_listed_and_signed_out(client: Client, cast: Cast) -> None:
    there = Client(headers={"User-Agent": "Elsewhere"})
    sign_in(there, cast.operator.email, cast.password)
    sign_in(client, cast.operator.email, cast.password)

    page = get_main(client.get("/accounts/sessions/"))
    client.post("/accounts/sessions/")

    assert "Elsewhere" in page
    assert "(this one)" in page
    assert there.get("/account/").status_code == 302
    assert client.get("/account/").status_code == 200
