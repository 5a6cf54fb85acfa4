"""The list of devices shows when a session was last used, and polls do not pay for it."""

from collections.abc import Callable
from typing import Any

from allauth.usersessions.models import UserSession
from django.core.cache import cache
from django.test import Client

from portal.accounts.devices import NOTED_SECONDS
from portal.models import User
from tests.conftest import Cast

SignIn = Callable[[User], Client]

URL = "/api/v1/auth/session"


def test_a_request_is_recorded_once_a_minute(
    cast: Cast, client_for: SignIn, time_machine: Any, django_assert_num_queries: Any
) -> None:
    cache.clear()
    time_machine.move_to("2026-05-01T12:00:00Z", tick=False)
    client = client_for(cast.viewer)
    client.get(URL)
    first = UserSession.objects.get(user=cast.viewer).last_seen_at

    time_machine.shift(NOTED_SECONDS - 1)
    with django_assert_num_queries(2):  # session with its person, memberships
        client.get(URL)
    assert UserSession.objects.get(user=cast.viewer).last_seen_at == first

    time_machine.shift(2)
    client.get(URL)
    assert (UserSession.objects.get(user=cast.viewer).last_seen_at - first).total_seconds() == NOTED_SECONDS + 1


def test_each_session_of_a_person_is_recorded(cast: Cast, client_for: SignIn) -> None:
    for _ in range(2):
        client_for(cast.viewer).get(URL)

    assert UserSession.objects.filter(user=cast.viewer).count() == 2


def test_an_anonymous_request_is_not_recorded(cast: Cast) -> None:
    Client().get(URL)

    assert not UserSession.objects.exists()
