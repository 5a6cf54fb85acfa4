"""What the pages of deployments share: one deployment found."""

from uuid import UUID

from django.http import HttpRequest

from deployments.models import Deployment
from portal.errors import NOT_FOUND, PortalError
from portal.models import Organization


def find_deployment(request: HttpRequest, organization: Organization, deployment_id: UUID) -> Deployment:
    """Raises PortalError 404 for another organization's deployment as for one that does not exist."""
    visible = Deployment.objects.visible_to(request.user).for_detail()
    deployment = visible.filter(organization=organization, pk=deployment_id).first()
    if deployment is None:
        raise PortalError("not_found", NOT_FOUND, 404)
    return deployment
