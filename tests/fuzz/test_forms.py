"""Every form of every page, with hostile text in one field at a time: no server error, and no text becomes markup."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest
from django.test import Client

from portal.models import User
from tests.conftest import Cast
from tests.fuzz.conftest import CASES, HOSTILE
from tests.local_aws import LocalAws
from tests.portal.isolation_table import PERSONAL, PLACEHOLDER, PUBLIC, TENANT, Place, get_address, make_place, undone

SignIn = Callable[[User], Client]

pytestmark = pytest.mark.fuzz

# Forms that end the session or need another page first.
LEFT_OUT = ("/accounts/logout/",)
# Markup that only unescaped text can contain.
EXECUTABLE = (b"<script>alert(1)", b"<img src=x onerror", b'href="javascript:alert')


@dataclass(frozen=True)
class Form:
    """A form of a page: where it goes, how, and the value that each field has on the page."""

    action: str
    method: str
    fields: dict[str, str] = field(hash=False, default_factory=dict)


class FormParser(HTMLParser):
    """Collects the forms of a page, with the fields that a browser would send."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self.address = address
        self.forms: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            method = values.get("method", "get").lower()
            self.forms.append(Form(values.get("hx-post") or values.get("action") or self.address, method))
        elif tag in ("input", "select", "textarea", "button") and self.forms and values.get("name"):
            self.forms[-1].fields.setdefault(values["name"], values.get("value", ""))


def read_pages(client: Client, place: Place) -> Iterator[tuple[str, str]]:
    """Return the address and HTML of every page and fragment that the client may open."""
    rows = [get_address(row, place) for row in TENANT if row.get and not row.is_api]
    plain = ["/" + route for route in sorted(PERSONAL | PUBLIC) if not PLACEHOLDER.search(route)]
    for address in [*rows, *(address for address in plain if not address.startswith("/api/"))]:
        answer = client.get(address, follow=True)
        if answer.status_code == 200 and answer.headers.get("Content-Type", "").startswith("text/html"):
            yield address, answer.content.decode()


def find_forms(client: Client, place: Place) -> Iterator[Form]:
    """Return each form once, however many pages have it."""
    seen = set()
    for address, html in read_pages(client, place):
        parser = FormParser(address.partition("?")[0])
        parser.feed(html)
        for form in parser.forms:
            if form.method == "dialog":  # sends nothing
                continue
            kind = (form.action.partition("?")[0], form.method, tuple(sorted(form.fields)))
            if kind not in seen and not form.action.startswith(LEFT_OUT):
                seen.add(kind)
                yield form


@pytest.mark.parametrize("role", ["operator", "admin"])
def test_no_form_fails_over_hostile_text(
    cast: Cast, platform: LocalAws, client_for: SignIn, count: Callable[[int], None], role: str
) -> None:
    place = make_place(cast, cast.acme)
    client = client_for(getattr(cast, role))
    cases = [(form, name, text) for form in find_forms(client, place) for name in form.fields for text in HOSTILE]
    assert len(cases) > 1000
    picked = random.Random(role).sample(cases, min(len(cases), CASES // 2))

    for form, name, text in picked:
        with undone():
            answer = getattr(client, form.method)(form.action, form.fields | {name: text})
        count(answer.status_code)

        assert answer.status_code < 500, (form, name, text)
        assert not [markup for markup in EXECUTABLE if markup in answer.content], (form, name, text)
        assert "X-Injected" not in answer.headers
