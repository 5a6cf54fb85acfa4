"""What the pages of deployments and agents share: who looks, what every page needs, one deployment found."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest

from deployments.models import Deployment
from portal.access import role_in
from portal.errors import NOT_FOUND, PortalError
from portal.health import silent_processes
from portal.models import Organization, Role, User


def find_deployment(request: HttpRequest, organization: Organization, deployment_id: UUID) -> Deployment:
    """Raises PortalError 404 for another organization's deployment as for one that does not exist."""
    visible = Deployment.objects.visible_to(request.user).for_detail()
    deployment = visible.filter(organization=organization, pk=deployment_id).first()
    if deployment is None:
        raise PortalError("not_found", NOT_FOUND, 404)
    return deployment


def page_context(request: HttpRequest, organization: Organization) -> dict[str, Any]:
    """What every page of an organization needs. Two queries."""
    role = role_in(request.user, organization)
    may_act = role is not None and role.includes(Role.OPERATOR)
    return {
        "organization": organization,
        "role": role,
        "silent_processes": silent_processes(),
        "may_act": may_act,
        "may_not_reason": None if may_act else f"Your role is {role}: this needs operator.",
    }


def person(request: HttpRequest) -> User:
    """The signed-in person; AccessMiddleware has turned everybody else away."""
    assert isinstance(request.user, User)  # noqa: S101
    return request.user
