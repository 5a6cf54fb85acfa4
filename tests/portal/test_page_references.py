"""Every id that an element refers to exists on its page, also when the page is opened by its own URL.

A confirmation is also a fragment of another page. If it refers to an element that exists only there, its button does
nothing when the confirmation is opened by itself.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from django.test import Client

from portal.models import User
from tests.conftest import Cast
from tests.local_aws import LocalAws
from tests.portal.isolation_table import NOWHERE, TENANT, Place, ask, get_address, make_place, undone

SignIn = Callable[[User], Client]
PAGES = [row for row in TENANT if not row.is_api]
# The attributes that contain ids, and those of htmx that contain selectors among other words.
IDS = {"for", "form", "list", "popovertarget", "data-copy", "aria-controls", "aria-describedby", "aria-labelledby"}
SELECTORS = {"hx-target", "hx-select", "hx-include", "hx-indicator", "hx-swap", "hx-sync", "hx-trigger"}
SELECTED = re.compile(r"#([\w-]+)")


class References(HTMLParser):
    """Collects the ids of a page and the ids that its elements refer to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.pointed_at: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            self.pointed_at += [(f"{tag} {name}", each) for each in pointed_at_by(name, value or "")]

    @property
    def missing(self) -> list[tuple[str, str]]:
        return [(where, each) for where, each in self.pointed_at if each not in self.ids]


def pointed_at_by(name: str, value: str) -> Iterator[str]:
    if name in IDS:
        yield from value.split()
    elif name in SELECTORS:
        yield from SELECTED.findall(value)
    elif name == "href" and len(value) > 1 and value.startswith("#"):
        yield value[1:]


def missing_on(response: Any) -> list[tuple[str, str]]:
    """Return the ids that the page's elements refer to but the page lacks. Empty for a download or redirect."""
    page = response.content.decode()
    return References(page).missing if page.startswith("<!doctype html>") else []


@pytest.fixture
def place(cast: Cast, platform: LocalAws) -> Place:
    return make_place(cast, cast.acme)


@pytest.mark.parametrize("name", ["viewer", "admin"])
def test_a_page_has_what_its_elements_point_to(cast: Cast, place: Place, client_for: SignIn, name: str) -> None:
    client = client_for(getattr(cast, name))

    missing = {}
    for row in (row for row in PAGES if row.get):
        for query in ("", *row.queries):
            answer = ask(client, row, "get", place, query=query)
            assert answer.status_code in (200, 302)
            missing[get_address(row, place, query)] = missing_on(answer)

    assert {address: found for address, found in missing.items() if found} == {}


def test_a_page_without_a_cluster_has_what_it_points_to(cast: Cast, client_for: SignIn) -> None:
    client = client_for(cast.newcomer)

    for row in (row for row in PAGES if row.get and not row.is_of_an_object):
        answer = client.get(get_address(row, replace(NOWHERE, slug="initech")))

        assert (row, missing_on(answer)) == (row, [])


def test_a_refused_form_has_what_its_elements_point_to(cast: Cast, place: Place, client_for: SignIn) -> None:
    client = client_for(cast.admin)

    missing = {}
    for row in (row for row in PAGES if row.sends):
        with undone():
            missing[get_address(row, place)] = missing_on(client.post(get_address(row, place)))

    assert {address: found for address, found in missing.items() if found} == {}


def test_a_bulk_confirmation_has_what_it_points_to(cast: Cast, place: Place, client_for: SignIn) -> None:
    several = {"command": "kill", "id": list(place.deployments.values())}

    answer = client_for(cast.operator).post("/o/acme/deployments/bulk", several)

    assert "Kill 2 deployments?" in answer.content.decode()
    assert missing_on(answer) == []
