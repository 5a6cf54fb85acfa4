"""How API requests are authenticated: by Django's session alone. In its own module, because DRF imports it by name."""

from rest_framework import authentication
from rest_framework.request import Request


class SessionAuthentication(authentication.SessionAuthentication):
    """Django's session. An unrelated `Authorization` header is ignored; anonymous is 401, not DRF's 403."""

    def authenticate_header(self, request: Request) -> str:
        return "Session"
