"""Finds deployments, agents, upgrades and actions of an organization: for the command palette, and as a page of its own.

Each app finds its own through a template tag. A search reads the newest rows, so it costs the same however many there are.
"""

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from portal.access import Policy, get_page_organization, get_role, policy
from portal.models import Organization, Role
from portal.web.context import page_context
from portal.web.htmx import render_page, wants_fragment

MAX_TEXT = 100
# Of the newest deployments and upgrades, so many are searched; of each kind of result, so many are shown.
NEWEST, SHOWN = 500, 8
# A row is found if each word is a part of its text.
HAS_WORDS = (
    "NOT EXISTS (SELECT FROM unnest(%s::text[]) AS word WHERE strpos(lower(concat_ws(' ', {fields})), word) = 0)"
)
# Label, page, its query, the role that may act. Those with a query are offered only to a text that names them.
ACTIONS = [
    ("Deploy an agent", "deployments:new", "", Role.OPERATOR),
    ("Create an agent", "agents:new", "", Role.OPERATOR),
    ("Upgrade services", "upgrades:new", "", Role.OPERATOR),
    ("Upgrade the agent service", "upgrades:new", "?service=agent", Role.OPERATOR),
    ("Upgrade the orchestrator", "upgrades:new", "?service=orchestrator", Role.OPERATOR),
    ("Upgrade the customer portal", "upgrades:new", "?service=customer-portal", Role.OPERATOR),
    ("Add a member", "members:new", "", Role.ADMIN),
]


@dataclass(frozen=True)
class Found:
    """A result: a link with its label, a shorter text beside it, and what it leads to, such as `Deployment, failed`."""

    href: str
    label: str
    detail: str
    kind: str


@policy(Policy.VIEWER)
@require_safe
def search(request: HttpRequest, slug: str) -> HttpResponse:
    """Render what the text in `q` finds. The palette asks for the list alone.

    *Costs* two statements for the list; none without a text.
    """
    organization = get_page_organization(request, slug)
    q = request.GET.get("q", "")[:MAX_TEXT]
    role = get_role(request.user, organization)
    words = split_words(q)
    context: dict[str, Any] = {"organization": organization, "role": role, "q": q, "words": words, "newest": NEWEST}
    context["actions"] = find_actions(words, role, organization)
    if not wants_fragment(request):
        context |= page_context(request, organization)
    return render_page(request, "portal/web/search.html", "portal/web/_found.html", context)


def split_words(text: str) -> list[str]:
    """Return the words in lower case. PostgreSQL takes no NUL."""
    return text.replace("\x00", "").lower().split()


def find_actions(words: list[str], role: Role | None, organization: Organization) -> list[Found]:
    """Return the actions that the role may take and whose label has all words."""
    return [
        Found(reverse(view_name, args=[organization.slug]) + query, label, "", "Action")
        for label, view_name, query, needed in ACTIONS
        if role and role.includes(needed) and all(word in label.lower() for word in words) and (words or not query)
    ]
