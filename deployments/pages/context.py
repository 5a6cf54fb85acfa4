"""Helpers shared by the pages of deployments."""

from uuid import UUID

from django.http import HttpRequest

from deployments.models import Deployment
from portal.errors import found_or_404
from portal.models import Organization


def find_deployment(request: HttpRequest, organization: Organization, deployment_id: UUID) -> Deployment:
    """Return the deployment. *Raises* PortalError 404 if it does not exist or belongs to another organization."""
    visible = Deployment.objects.visible_to(request.user).for_detail()
    return found_or_404(visible.filter(organization=organization, pk=deployment_id).first())
