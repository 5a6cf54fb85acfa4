"""Hostile text in every stored field of an organization, and every page of it in a real browser: nothing is executed."""

from collections.abc import Callable
from contextlib import suppress

import pytest
from django.apps import apps
from django.db import DatabaseError, transaction
from django.db.models import CharField, TextField
from django.test import Client

from portal.models import Organization, User
from tests.browser.conftest import OpenPage, browser, guard, open_page  # noqa: F401 - fixtures
from tests.conftest import Cast
from tests.fuzz.conftest import CASES, HOSTILE
from tests.fuzz.test_forms import read_pages
from tests.local_aws import LocalAws
from tests.portal.test_isolation import plant

SignIn = Callable[[User], Client]

pytestmark = [pytest.mark.fuzz, pytest.mark.browser, pytest.mark.django_db(transaction=True)]

# Columns that address something: with another text the rows would not be found.
ADDRESSES = ("slug", "upgrade_id", "deployment_stack", "deployment_region", "ecs_event_id", "email", "_arn", "key")
# What fits into every column, and what PostgreSQL can store.
STORABLE = [text for text in HOSTILE if len(text) < 32 and "\u0000" not in text and text.strip()]


def store_everywhere(word: str) -> int:
    """Write the text into each text column of each tenant table that accepts it, and return the number of columns."""
    models = [each for each in apps.get_models() if hasattr(each, "organization") or each is Organization]
    written = 0
    for model, column in [(each, column) for each in models for column in each._meta.concrete_fields]:
        is_text = isinstance(column, CharField | TextField) and not (column.choices or column.unique)
        if not is_text or column.name.endswith(ADDRESSES):
            continue
        with suppress(DatabaseError), transaction.atomic():  # a constraint of the table may refuse it
            model._default_manager.update(**{column.name: word})
            written += 1
    return written


@pytest.mark.parametrize("word", STORABLE[: max(2, CASES // 700)])
def test_no_page_executes_what_people_typed(
    cast: Cast,
    platform: LocalAws,
    client_for: SignIn,
    open_page: OpenPage,  # noqa: F811 - the fixture
    count: Callable[[int], None],
    word: str,
) -> None:
    """The guard of the page fails on a dialog, a violation of the content security policy and a foreign request."""
    place = plant(cast, cast.acme, "control")
    assert store_everywhere(word) > 20
    page = open_page("/o/acme/", cast.admin)

    for address, _ in list(read_pages(client_for(cast.admin), place)):
        answer = page.goto(address)
        assert answer is not None
        count(answer.status)
