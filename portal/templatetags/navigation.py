"""The tag `{% navigation as links %}`: the main navigation of an organization's pages. _keys.html lists its keys."""

from dataclasses import dataclass
from typing import Any

from django import template
from django.urls import reverse

from portal.saved_views.lists import DEFAULT_QUERY

register = template.Library()


@dataclass(frozen=True)
class Section:
    """One link of the navigation. `icon` is a symbol of _shapes.html, `key` opens the page after `g`.

    `query`: a query string of the link.
    `parts` are view names, or beginnings of them, of the section's other pages: on these the link is current too.
    """

    label: str
    view_name: str
    icon: str
    key: str = ""
    parts: tuple[str, ...] = ()
    query: str = ""


UPGRADE_PAGES = (
    "upgrades:detail",
    "upgrades:decide",
    "upgrades:stop",
    "upgrades:rollback",
    "upgrades:sign",
    "upgrades:evidence",
)
SECTIONS = [
    Section("Overview", "overview", "overview", key="o"),
    Section(
        "Deployments", "deployments:list", "deployments", key="d", parts=("deployments:",), query=f"?{DEFAULT_QUERY}"
    ),
    Section("Upgrade", "upgrades:new", "upgrade", key="u"),
    Section("History", "upgrades:history", "history", key="h", parts=UPGRADE_PAGES, query=f"?{DEFAULT_QUERY}"),
]
# On a narrow screen these are in the menu "More".
MORE_SECTIONS = [
    Section("Agents", "agents:list", "agent", key="n", parts=("agents:",)),
    Section("Versions", "upgrades:versions", "versions", key="v"),
    Section("Activity", "activity", "activity", key="a"),
    Section("Settings", "settings:index", "settings", key="s", parts=("settings:", "members:", "org_tokens:")),
]


@dataclass(frozen=True)
class Link:
    section: Section
    url: str
    current: str | None


@register.simple_tag(takes_context=True)
def navigation(context: dict[str, Any]) -> dict[str, list[Link]]:
    """Return the links to `sections` and to `more` sections, with the values of aria-current."""
    args = [context["organization"].slug]
    match = context["request"].resolver_match
    here = match.view_name if match else ""

    def build_link(section: Section) -> Link:
        return Link(section, reverse(section.view_name, args=args) + section.query, get_current(section, here))

    return {
        "sections": [build_link(section) for section in SECTIONS],
        "more": [build_link(section) for section in MORE_SECTIONS],
    }


def get_current(section: Section, here: str) -> str | None:
    """Return `page` on the section's own page, `true` on its other pages, else None."""
    if here == section.view_name:
        return "page"
    return "true" if here.startswith(section.parts) else None
