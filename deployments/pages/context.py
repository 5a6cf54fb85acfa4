"""What the pages of deployments share: one deployment found."""

from uuid import UUID

from django.http import HttpRequest

from deployments.models import Deployment
from portal.errors import existing
from portal.models import Organization


def find_deployment(request: HttpRequest, organization: Organization, deployment_id: UUID) -> Deployment:
    """Raises PortalError 404 for another organization's deployment as for one that does not exist."""
    visible = Deployment.objects.visible_to(request.user).for_detail()
    return existing(visible.filter(organization=organization, pk=deployment_id).first())
