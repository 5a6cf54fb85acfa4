"""Views that fail in every way that a view can fail, for test_errors.py. Their secrets must never be shown."""

from typing import NoReturn

from django.core.exceptions import PermissionDenied
from django.db import DataError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest
from django.urls import include, path
from redis.exceptions import ConnectionError as RedisConnectionError
from rest_framework.request import Request

from portal.access import Policy, policy
from portal.api.routes import api_route
from portal.errors import PortalError

FAILURES: dict[str, Exception] = {
    "defect": RuntimeError("secret of the defect"),
    "database": OperationalError("secret address of the database"),
    "connection": InterfaceError("secret address of the database"),
    "redis": RedisConnectionError("secret address of the cache"),
    "busy": PortalError("busy", "Wait a little.", 429, retry_after=17),
    "conflict": PortalError("upgrade_in_progress", "It runs.", 409, upgrade_id="upgrade-1"),
    "data": DataError("secret value"),
    "missing": Http404("secret of what is missing"),
    "denied": PermissionDenied("Ask an admin."),
}


@policy(Policy.PUBLIC)
def page(request: HttpRequest, failure: str) -> NoReturn:
    raise FAILURES[failure]


@api_route("GET", allow=Policy.PUBLIC)
def api(request: Request, failure: str) -> NoReturn:
    raise FAILURES[failure]


urlpatterns = [path("fail/<failure>/", page), path("api/v1/fail/<failure>", api), path("", include("portal.urls"))]

handler400 = "portal.errors.bad_request"
handler403 = "portal.errors.permission_denied"
handler404 = "portal.errors.not_found"
handler500 = "portal.errors.server_error"
