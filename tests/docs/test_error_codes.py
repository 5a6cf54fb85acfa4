"""docs/errors.md lists exactly the codes that the code can answer."""

from typing import Any

import pytest
from django.test import Client

from tests.docs.error_codes import FRAMEWORK, PAGE, ROW, make_tables


def test_the_page_lists_each_code_with_its_statuses() -> None:
    made = make_tables()
    of_api, _, of_pages = PAGE.read_text().partition("## Pages only")

    for part, table in ((of_api, "api"), (of_pages, "pages")):
        rows = ROW.findall(part)
        assert {name: statuses for name, statuses, _ in rows} == made[table], table
        assert [name for name, _, meaning in rows if not meaning] == []
    assert len(made["api"]) > 50


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("delete", "/api/schema", {}),
        ("get", "/api/schema", {"headers": {"Accept": "text/xml"}}),
        ("post", "/api/v1/auth/login", {"data": "{", "content_type": "application/json"}),
        ("post", "/api/v1/auth/login", {"data": "x", "content_type": "text/plain"}),
    ],
)
def test_the_framework_answers_its_codes(db: None, method: str, path: str, options: dict[str, Any]) -> None:
    answer = getattr(Client(), method)(path, **options)

    assert (answer.json()["code"], answer.status_code) in FRAMEWORK
