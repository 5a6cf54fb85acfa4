"""Text that people type: pages and exports show it, and it changes neither terminal, direction nor spreadsheet."""

import csv
import gzip
import io
from collections.abc import Callable

import pytest
from django.test import Client

from portal.models import User
from portal.safe_text import MARK, safe_bytes
from portal.web.csv import as_cell
from tests.conftest import Cast
from tests.upgrades.conftest import make_upgrade

SignIn = Callable[[User], Client]

SIGNS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\uff1d1+1",
    "\uff0b1",
    "\uff0d1",
    "\uff201",
    "\ufe661",
    "\ufe6b1",
    "\t=1",
    "\r=1",
    "\n=1",
]
BEFORE = ["", " ", "\x0c", "\x0b", "\u00a0", "\u200b", "\u202e", "\ufeff", "\u2060", "\u00ad", "\x1b[31m"]
CONTROLS = ["\x1b", "\x07", "\x0b", "\x0c", "\x7f", "\x85", "\x9b"]
# https://www.unicode.org/Public/UCD/latest/ucd/PropList.txt: Bidi_Control
BIDI = ["\u061c", "\u200e", "\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))]
UNSAFE = [*CONTROLS, *BIDI]


@pytest.mark.parametrize("before", BEFORE)
def test_no_cell_begins_with_a_sign(before: str) -> None:
    for sign in SIGNS:
        cell = as_cell(before + sign)
        assert cell.startswith("'"), repr(cell)
        assert as_cell(f"done;{before}{sign}".replace("\n", "")).count("'") == 1


@pytest.mark.parametrize("plain", ["v9.9.1", "a-b", "1 + 1 = 2", "done; next", "https://a.example/?b=c", "größer"])
def test_an_ordinary_cell_stays(plain: str) -> None:
    assert as_cell(plain) == plain


def test_a_page_keeps_all_other_characters() -> None:
    text = "<p>größer ½ ✓ 日本 🙂\tx\r\n</p>"

    assert safe_bytes(text.encode()) == text.encode()
    for one in UNSAFE:
        assert safe_bytes(f"a{one}b".encode()) == f"a{MARK}b".encode()


def test_pages_and_exports_show_typed_text_safely(cast: Cast, client_for: SignIn) -> None:
    reason = f"=1+1 typed {''.join(UNSAFE)} reason"
    upgrade = make_upgrade(cast.acme, by=cast.operator, reason=reason)
    client = client_for(cast.viewer)

    history = client.get("/o/acme/upgrades/history").content.decode()
    page = client.get(f"/o/acme/upgrades/{upgrade.upgrade_id}/").content.decode()
    export = client.get("/o/acme/upgrades/history.csv").content.decode()

    assert MARK in page
    (row,) = csv.DictReader(io.StringIO(export))
    assert row["reason"].startswith("'=1+1 typed ")
    for answer in (history, page, export):
        assert [one for one in UNSAFE if one in answer] == []


def test_a_compressed_page_shows_typed_text_safely(cast: Cast, client_for: SignIn) -> None:
    client = client_for(cast.viewer)
    User.objects.filter(pk=cast.viewer.pk).update(email=f"viewer{BIDI[0]}@example.com")

    page = client.get("/api/docs", headers={"Accept-Encoding": "gzip"})

    assert f"viewer{MARK}@example.com" in gzip.decompress(page.content).decode()
