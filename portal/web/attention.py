"""What an organization's overview shows first: whatever needs a person, each with its reason and its next action.

Each app finds its own items; settings.ATTENTION names the sources. upgrades/pages/overview.py adds those of the platform
services, which it has read for its own block anyway.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from itertools import chain
from typing import Any

from django.conf import settings
from django.urls import reverse
from django.utils.module_loading import import_string
from django.utils.text import slugify

from portal.models import Organization
from portal.web.overview_rows import Rows


class Level(StrEnum):
    """How urgent an item is, the most urgent first. NEWS needs nobody now."""

    BAD = "bad"
    WARN = "warn"
    NEWS = "news"


@dataclass(frozen=True)
class Item:
    """One thing that needs attention.

    `status` and `label` make its chip. `reason`: one or two sentences. `line`: the last line that says why, as an
    application or ECS wrote it. `action` is the text of the link to `url`, where a person does something about it.
    """

    level: Level
    status: str
    label: str
    title: str
    action: str
    url: str
    reason: str = ""
    line: str = ""
    at: datetime | None = None

    @property
    def key(self) -> str:
        """Return the id of its link, the same after a refresh, so that the focus stays."""
        return f"attention-{self.status}-{slugify(self.url)}"


@dataclass(frozen=True)
class Source:
    """How an app finds its items, from the rows of the overview.

    `column`: SQL of one value from which `find_shown` says what the items show, so that they need not be found to know
    whether they have changed. `find_shown` returns None if that is not known.
    """

    find: Callable[[Organization, Rows], list[Item]]
    column: str
    find_shown: Callable[[Any], object | None]


@cache
def list_sources() -> list[Source]:
    return [import_string(name) for name in settings.ATTENTION]


@dataclass(frozen=True)
class Attention:
    """The items to show, the most urgent first."""

    items: list[Item]

    @property
    def count(self) -> int:
        return sum(item.level != Level.NEWS for item in self.items)


def find_attention(organization: Organization, rows: Rows, silent: list[str], found: Iterable[Item] = ()) -> Attention:
    """Return `found` with the items of all apps.

    `rows`: those of the overview. `silent`: the processes of the portal that have not been heard of.
    *Costs* what settings.ATTENTION costs.
    """
    of_apps = chain.from_iterable(source.find(organization, rows) for source in list_sources())
    items = [*find_silent(silent), *found, *of_apps]
    return Attention(sorted(items, key=lambda item: list(Level).index(item.level)))


def find_silent(silent: list[str]) -> list[Item]:
    if not silent:
        return []
    names = " and ".join(silent)
    return [
        Item(
            Level.BAD,
            "missing",
            "Silent",
            f"The upgrade runner ({names}) has not been seen for 30 s",
            "See what answers",
            reverse("health"),
            reason="Nothing is upgraded or deployed meanwhile. What you request is recorded and continues when it is back.",
        )
    ]
