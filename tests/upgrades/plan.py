"""The page of the upgrade form: its text, inputs and rows."""

import html
import re

from django.test import Client

URL = "/o/acme/upgrades/new"


def words(page: str) -> str:
    """Return the visible text: no tags, single spaces."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", page)))


def inputs(page: str) -> list[dict[str, str]]:
    """Return the attributes of every input, in order; attributes without a value are empty."""
    return [
        {name: html.unescape(value) for name, value in re.findall(r'([\w-]+)(?:="([^"]*)")?', tag)}
        for tag in re.findall(r"<input([^>]*)>", page)
    ]


def radios(page: str, state: str) -> list[str]:
    """Return the targets whose radio button is `checked` or `disabled`."""
    return [each["value"] for each in inputs(page) if each.get("type") == "radio" and state in each]


def would_send(page: str) -> dict[str, str]:
    """Return what the start form sends without any input."""
    hidden = all_hidden(page)
    return {name: hidden[name] for name in ("service", "version", "force_new_deployment", "changed") if name in hidden}


def all_hidden(page: str) -> dict[str, str]:
    return {each["name"]: each["value"] for each in inputs(page) if each.get("type") == "hidden"}


def get_row(page: str, label: str) -> str:
    """Return the text of one service's row of the plan."""
    found = re.search(rf'<li class="plan-row[^>]*aria-label="{label}">(.*?)</li>', page, re.DOTALL)
    assert found, label
    return words(found[1])


def ask(client: Client, query: str = "", **headers: str) -> str:
    response = client.get(f"{URL}?{query}", headers=headers)
    assert response.status_code == 200
    return str(response.content.decode())
