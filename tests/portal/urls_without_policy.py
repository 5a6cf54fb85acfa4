"""The portal's URLs and another one whose view declares no policy."""

from django.http import HttpRequest, HttpResponse
from django.urls import path

from portal.urls import handler403, handler404, handler500
from portal.urls import urlpatterns as portals

__all__ = ["handler403", "handler404", "handler500"]


def undeclared(request: HttpRequest) -> HttpResponse:
    raise AssertionError("this view must never be reached")


urlpatterns = [*portals, path("undeclared/", undeclared), path("api/v1/undeclared", undeclared)]
