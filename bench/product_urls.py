"""The product's routes, and a no-op that any member may call: what a request costs before its view does anything."""

from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response

from portal.access import Policy
from portal.api.routes import api_route
from portal.urls import handler400, handler403, handler404, handler429, handler500
from portal.urls import urlpatterns as product_urls

__all__ = ["handler400", "handler403", "handler404", "handler429", "handler500"]


@api_route("GET", "POST", allow=Policy.VIEWER)
def noop(request: Request) -> Response:
    """Answer a signed-in person. The middlewares have read session, person and context, and REST framework the user."""
    return Response({"person": request.user.pk})


urlpatterns = [path("api/v1/bench/noop", noop), *product_urls]
