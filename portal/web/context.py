"""The template context that every page of an organization needs, in all apps."""

from typing import Any

from django.http import HttpRequest

from portal.access import get_role, open_page
from portal.models import Organization, Role


def page_context(request: HttpRequest, organization: Organization) -> dict[str, Any]:
    """Return the organization, the person's role, and whether they may act or why not. *Costs* one query."""
    role = get_role(request.user, organization)
    may_act = role is not None and role.includes(Role.OPERATOR)
    return {
        "organization": organization,
        "role": role,
        "silent_processes": open_page(request, organization).silent_processes,
        "may_act": may_act,
        "may_not_reason": None if may_act else f"Your role is {role}: this needs operator.",
    }


def settings_context(request: HttpRequest, organization: Organization) -> dict[str, Any]:
    """Return the context of a page under Settings, on which only admins may act. *Costs* one query."""
    context = page_context(request, organization)
    role = context["role"]
    may_act = role is not None and role.includes(Role.ADMIN)
    reason = None if may_act else f"Your role is {role}: this needs admin."
    return context | {"may_act": may_act, "may_not_reason": reason}


def get_skip(request: HttpRequest) -> int:
    """Return `skip` from the URL; 0 for an invalid value."""
    skip = request.GET.get("skip", "0")
    return int(skip) if skip.isascii() and skip.isdecimal() and len(skip) < 9 else 0
