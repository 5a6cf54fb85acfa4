"""What the pages of both apps share: the context that every page of an organization needs."""

from typing import Any

from django.http import HttpRequest

from portal.access import role_in
from portal.health import silent_processes
from portal.models import Organization, Role


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
