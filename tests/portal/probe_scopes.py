"""Requests every address of a tenant and searches for another organization's canary. bench/scope_mutants.py runs it."""

from collections.abc import Callable
from dataclasses import replace

from django.test import Client

from portal.models import User
from tests.conftest import Cast
from tests.local_aws import LocalAws
from tests.portal.isolation_table import TENANT, get_address, make_place
from tests.portal.test_isolation import CANARY, plant

ELSEWHERE = [
    "/",
    "/account/",
    "/api/v1/auth/session",
    "/o/acme/upgrades/new?service=agent",
    "/o/acme/deployments/?q=anar",
]


def test_no_address_shows_the_canary(cast: Cast, platform: LocalAws, client_for: Callable[[User], Client]) -> None:
    """As an admin of acme: acme's own addresses, globex's, and acme's with the ids of globex's objects."""
    client = client_for(cast.admin)
    mine, theirs = make_place(cast, cast.acme), plant(cast, cast.globex, CANARY)
    rows = [row for row in TENANT if row.get]
    places = (mine, theirs, replace(theirs, slug="acme"))
    addresses = [*ELSEWHERE, *(get_address(row, place) for row in rows for place in places)]

    for address in dict.fromkeys(addresses):
        text = client.get(address, follow=True).content.decode().lower()
        assert CANARY not in text, f"leaked at {address}"
