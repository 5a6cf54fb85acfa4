"""A session ends when it is idle and at its age; the list of devices shows its activity, and polls do not pay for it."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.db import DatabaseError, connection
from django.test import Client
from django.utils import timezone

from portal.accounts.sessions import ACTIVITY_SECONDS, SessionStore
from portal.models import User
from tests.conftest import Cast, get_session

SignIn = Callable[[User], Client]

URL = "/api/v1/auth/session"
START = "2026-05-01T12:00:00Z"
MINUTE = 60


@pytest.fixture
def clock(time_machine: Any) -> Any:
    time_machine.move_to(START, tick=False)
    return time_machine


def test_activity_is_stored_once_in_five_minutes(
    cast: Cast, client_for: SignIn, clock: Any, django_assert_num_queries: Any
) -> None:
    client = client_for(cast.viewer)
    UserSession.objects.all().delete()
    clock.shift(ACTIVITY_SECONDS - 1)
    with django_assert_num_queries(3):  # session, person of a session that is not in the list of devices, memberships
        client.get(URL)
    assert not UserSession.objects.exists()

    clock.shift(1)
    client.get(URL)
    first = UserSession.objects.get(user=cast.viewer).last_seen_at
    clock.shift(ACTIVITY_SECONDS - 1)
    with django_assert_num_queries(2):  # session with its person, memberships
        client.get(URL)
    assert UserSession.objects.get(user=cast.viewer).last_seen_at == first

    clock.shift(1)
    client.get(URL)
    assert (UserSession.objects.get(user=cast.viewer).last_seen_at - first).total_seconds() == ACTIVITY_SECONDS


def test_activity_is_written_after_the_response(cast: Cast, client_for: SignIn, clock: Any, settings: Any) -> None:
    """A server closes the response after it has sent the last byte."""
    settings.ROOT_URLCONF = "tests.portal.urls_that_stream"
    client = client_for(cast.viewer)
    signed_in = UserSession.objects.get().last_seen_at
    clock.shift(ACTIVITY_SECONDS)

    answer: Any = client.get("/organizations")
    before_its_end = UserSession.objects.get().last_seen_at
    text = b"".join(answer.streaming_content)

    assert (text, before_its_end) == (b"acmeacme", signed_in)
    assert UserSession.objects.get().last_seen_at == signed_in + timedelta(seconds=ACTIVITY_SECONDS)


def test_of_two_requests_together_one_stores_the_activity(cast: Cast, client_for: SignIn, clock: Any) -> None:
    client = client_for(cast.viewer)
    clock.shift(ACTIVITY_SECONDS)
    stores = [SessionStore(cookie_key=client.cookies[settings.SESSION_COOKIE_NAME].value) for _ in range(2)]

    due = [bool(store.keys()) and store.is_activity_due for store in stores]

    assert (due, [store.store_activity() for store in stores]) == ([True, True], [True, False])


def test_activity_that_cannot_be_stored_breaks_nothing(
    cast: Cast, client_for: SignIn, clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client = client_for(cast.viewer)
    clock.shift(ACTIVITY_SECONDS)
    caplog.set_level("INFO", "portal.after_response")

    def refuse_writes(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.startswith("UPDATE"):
            raise DatabaseError
        return execute(sql, *rest)

    with connection.execute_wrapper(refuse_writes):
        response = client.get(URL)

    assert response.status_code == 200
    assert "write after the response dropped: DatabaseError" in caplog.text


def test_each_session_of_a_person_is_recorded(cast: Cast, client_for: SignIn, clock: Any) -> None:
    clients = [client_for(cast.viewer) for _ in range(2)]
    clock.shift(ACTIVITY_SECONDS)
    for client in clients:
        client.get(URL)

    seen = cast.viewer.usersession_set.values_list("last_seen_at", flat=True)
    assert list(seen) == [timezone.now()] * 2


def test_an_anonymous_request_is_not_recorded(cast: Cast) -> None:
    Client().get(URL)

    assert not UserSession.objects.exists()


def test_an_idle_session_ends(cast: Cast, client_for: SignIn, clock: Any) -> None:
    client = client_for(cast.viewer)
    clock.shift(29 * MINUTE)
    used = client.get(URL).status_code
    clock.shift(29 * MINUTE)
    used_again = client.get(URL).status_code
    clock.shift(30 * MINUTE)

    assert [used, used_again, client.get(URL).status_code] == [200, 200, 401]


@pytest.fixture
def used_until_the_end(cast: Cast, clock: Any) -> Iterator[Client]:
    """Return a client that signed in and has used its session every 20 minutes since, until 2 minutes before its end."""
    client = Client()
    client.post("/accounts/login/", {"login": cast.viewer.email, "password": cast.password})
    for _ in range(12 * 3 - 1):
        clock.shift(20 * MINUTE)
        assert client.get(URL).status_code == 200
    clock.shift(18 * MINUTE)
    return client


def test_a_session_in_use_ends_after_twelve_hours(used_until_the_end: Client, clock: Any) -> None:
    before = used_until_the_end.get(URL).status_code
    clock.shift(2 * MINUTE)

    assert (before, used_until_the_end.get(URL).status_code) == (200, 401)


def test_reauthentication_does_not_extend_a_session(used_until_the_end: Client, cast: Cast, clock: Any) -> None:
    response = used_until_the_end.post("/accounts/reauthenticate/", {"password": cast.password})
    cookie = response.cookies[settings.SESSION_COOKIE_NAME]
    clock.shift(2 * MINUTE)

    assert (response.status_code, cookie["max-age"]) == (302, 2 * MINUTE)
    assert used_until_the_end.get(URL).status_code == 401


def test_signing_in_begins_a_new_lifetime(cast: Cast, clock: Any) -> None:
    client = Client()
    client.get("/accounts/2fa/webauthn/login/", headers={"X-Requested-With": "XMLHttpRequest"})
    anonymous_end = get_session(client).ends_at
    clock.shift(20 * MINUTE)

    client.post("/accounts/login/", {"login": cast.viewer.email, "password": cast.password})

    assert (get_session(client).ends_at - anonymous_end).total_seconds() == 20 * MINUTE


def test_reading_the_end_costs_no_query(cast: Cast, client_for: SignIn, django_assert_num_queries: Any) -> None:
    session = get_session(client_for(cast.viewer))

    with django_assert_num_queries(1):
        assert session[SESSION_KEY] == str(cast.viewer.pk)
        assert (session.ends_at - timezone.now()).total_seconds() > 11 * 3600
