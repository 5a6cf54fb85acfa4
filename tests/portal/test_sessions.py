"""Sessions: their keys are stored hashed, and signing out or changing the password ends the right ones."""

import base64
import hashlib
from collections.abc import Callable

import pytest
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.sessions.models import Session
from django.core import mail
from django.test import Client

from portal.models import User
from tests.conftest import Cast

SignIn = Callable[[User], Client]
NEW_PASSWORD = "a-rather-different-word-7"


def sign_in(user: User, password: str) -> Client:
    client = Client()
    assert client.post("/accounts/login/", {"login": user.email, "password": password}).status_code == 302
    return client


def is_signed_in(client: Client) -> bool:
    return client.get("/api/v1/auth/session").status_code == 200


def get_cookie(client: Client) -> str:
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def find_device(client: Client) -> int:
    """Return the id of the client's session in the list of devices."""
    digest = hashlib.sha256(get_cookie(client).encode()).digest()
    return UserSession.objects.get(session_key=base64.b85encode(digest).decode()).pk


def test_the_database_holds_only_the_hash_of_a_key(cast: Cast) -> None:
    client = sign_in(cast.viewer, cast.password)

    key = get_cookie(client)
    stored = base64.b85encode(hashlib.sha256(key.encode()).digest()).decode()

    assert list(Session.objects.values_list("session_key", flat=True)) == [stored]
    assert list(UserSession.objects.values_list("session_key", flat=True)) == [stored]
    assert key not in str([*Session.objects.values(), *UserSession.objects.values()])
    assert is_signed_in(client)


def test_a_stored_hash_is_no_key(cast: Cast) -> None:
    sign_in(cast.viewer, cast.password)
    thief = Client()
    thief.cookies[settings.SESSION_COOKIE_NAME] = Session.objects.get().session_key

    assert not is_signed_in(thief)


def test_one_device_is_signed_out_and_the_others_stay(cast: Cast) -> None:
    here, there, elsewhere = (sign_in(cast.viewer, cast.password) for _ in range(3))
    device = find_device(there)
    page = here.get("/accounts/sessions/").content.decode()

    here.post(f"/account/devices/{device}/sign-out")

    assert f"/account/devices/{device}/sign-out" in page
    assert [is_signed_in(client) for client in (here, there, elsewhere)] == [True, False, True]


def test_signing_out_the_device_in_use_ends_this_session(cast: Cast) -> None:
    here, there = (sign_in(cast.viewer, cast.password) for _ in range(2))

    here.post(f"/account/devices/{find_device(here)}/sign-out")

    assert [is_signed_in(client) for client in (here, there)] == [False, True]


def test_nobody_signs_another_persons_device_out(cast: Cast) -> None:
    mine, theirs = sign_in(cast.viewer, cast.password), sign_in(cast.admin, cast.password)

    response = mine.post(f"/account/devices/{find_device(theirs)}/sign-out")

    assert response.status_code == 404
    assert is_signed_in(theirs)


def test_all_other_devices_are_signed_out(cast: Cast) -> None:
    here, there, elsewhere = (sign_in(cast.viewer, cast.password) for _ in range(3))
    another = sign_in(cast.admin, cast.password)

    here.post("/accounts/sessions/")

    assert [is_signed_in(client) for client in (here, there, elsewhere, another)] == [True, False, False, True]


@pytest.mark.parametrize("by", ["change", "reset"])
def test_a_new_password_ends_all_sessions_of_the_person(cast: Cast, by: str) -> None:
    here, there = (sign_in(cast.viewer, cast.password) for _ in range(2))
    another = sign_in(cast.admin, cast.password)
    passwords = {"oldpassword": cast.password, "password1": NEW_PASSWORD, "password2": NEW_PASSWORD}

    if by == "change":
        here.post("/accounts/password/change/", passwords)
    else:
        anonymous = Client()
        anonymous.post("/accounts/password/reset/", {"email": cast.viewer.email})
        link = mail.outbox[0].body.split("http://testserver")[1].split()[0]
        form = anonymous.get(link, follow=True)
        anonymous.post(form.redirect_chain[-1][0], passwords)

    assert [is_signed_in(client) for client in (here, there, another)] == [False, False, True]
    assert is_signed_in(sign_in(cast.viewer, NEW_PASSWORD))
