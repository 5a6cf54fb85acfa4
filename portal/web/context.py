"""What the pages of both apps share: the context that every page of an organization needs."""

from typing import Any

from django.http import HttpRequest

from portal.access import role_in
from portal.models import Organization, Role
from portal.monitoring.health import silent_processes


def page_context(request: HttpRequest, organization: Organization) -> dict[str, Any]:
    """Who looks at whose page, whether they may act there and why not. Two queries."""
    role = role_in(request.user, organization)
    may_act = role is not None and role.includes(Role.OPERATOR)
    return {
        "organization": organization,
        "role": role,
        "silent_processes": silent_processes(),
        "may_act": may_act,
        "may_not_reason": None if may_act else f"Your role is {role}: this needs operator.",
    }


def settings_context(request: HttpRequest, organization: Organization) -> dict[str, Any]:
    """Of the pages below Settings: admins act, others read and are told why they may not. Two queries."""
    context = page_context(request, organization)
    role = context["role"]
    may_act = role is not None and role.includes(Role.ADMIN)
    reason = None if may_act else f"Your role is {role}: this needs admin."
    return context | {"may_act": may_act, "may_not_reason": reason}


def skip_of(request: HttpRequest) -> int:
    """`skip` of the address; what makes no sense is the first page."""
    skip = request.GET.get("skip", "0")
    return int(skip) if skip.isascii() and skip.isdecimal() and len(skip) < 9 else 0
