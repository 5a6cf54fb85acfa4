"""README and docs name only files, functions and pages that exist."""

import re
from pathlib import Path

import pytest

from tests.docs.test_console_blocks import PAGES
from tests.local_aws import ROOT

README_BYTES = 4096


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= README_BYTES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_linked_pages_exist(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return
    files = re.findall(
        r"`((?:portal|deployments|upgrades|templates|static|tests|bench|docs)/[\w./-]+)`", page.read_text()
    )

    assert [file for file in files if not (ROOT / file).exists()] == []


def test_functions_named_beside_a_file_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`([\w/]+\.py)` `(\w+)`", text) + [
        (file, function) for function, file in re.findall(r"`(\w+)` in `([\w/]+\.py)`", text)
    ]

    assert named
    assert [(file, name) for file, name in named if f"def {name}(" not in (ROOT / file).read_text()] == []
