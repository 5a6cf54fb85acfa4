"""Authentication of API requests by Django's session or an API token. A separate module, because DRF imports it by name."""

from copy import copy
from typing import Any

from django.conf import settings
from django.http import QueryDict
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import authentication
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from portal.access import get_scope
from portal.api_token import get_present_token
from portal.errors import CSRF_MISSING, PortalError


class SessionAuthentication(authentication.SessionAuthentication):
    """Authentication as AuthenticationMiddleware has found it: by the session, else by an API token. Anonymous is 401.

    Unsafe methods always need the CSRF token, unless an API token alone authenticated the request: no other site can make
    a browser send one. DRF does not check anonymous callers, which would leave sign-in open.
    """

    def authenticate(self, request: Request) -> tuple[Any, None] | None:
        found: tuple[Any, None] | None = super().authenticate(request)
        if found is None:
            self.enforce_csrf(request)
        return found

    def enforce_csrf(self, request: Request) -> None:
        """Check the token in the header only.

        To find a token in the body, REST framework would parse the body before a sign-in is counted. Safe methods
        need none.
        """
        if request.method in SAFE_METHODS or get_present_token():
            return
        without_body = copy(request._request)
        without_body.POST = QueryDict()
        try:
            super().enforce_csrf(without_body)  # type: ignore[arg-type] # the check itself is Django's, for Django's request
        except PermissionDenied as error:
            raise PortalError("csrf_failed", CSRF_MISSING, 403) from error

    def authenticate_header(self, request: Request) -> str:
        return "Session"


BEARER = (
    "An API token (`aop_...`) with the scope that the route names, in place of session and CSRF token. "
    "Beside a valid session it is ignored."
)


class SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call] # the library registers it
    """Describes SessionAuthentication in the OpenAPI schema: the session and the CSRF token, or a token with its scope."""

    target_class = SessionAuthentication
    name = ["session", "csrf", "token"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, str]]:
        token = f"The value of the {settings.CSRF_COOKIE_NAME} cookie. Over HTTPS send `Origin` or `Referer` too."
        return [
            {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME},
            {"type": "apiKey", "in": "header", "name": "X-CSRFToken", "description": token},
            {"type": "http", "scheme": "bearer", "description": BEARER},
        ]

    def get_security_requirement(self, auto_schema: Any) -> list[dict[str, list[Any]]]:
        session: dict[str, list[Any]] = {"session": []} if auto_schema.method == "GET" else {"session": [], "csrf": []}
        scope = get_scope(type(auto_schema.view), auto_schema.method)
        return [session, {"token": [scope.value]}] if scope else [session]
