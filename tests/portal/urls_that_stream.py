"""A view that reads the database while its answer is being sent, for test_row_level_security.py."""

from django.http import HttpRequest, StreamingHttpResponse
from django.urls import include, path

from portal.access import Policy, policy
from portal.models import Organization


@policy(Policy.PUBLIC)
def organizations(request: HttpRequest) -> StreamingHttpResponse:
    """Name the organizations that a query without a scope finds, in a query for each chunk."""
    return StreamingHttpResponse(",".join(Organization.objects.values_list("slug", flat=True)) for _ in range(2))


urlpatterns = [path("organizations", organizations), path("", include("portal.urls"))]
