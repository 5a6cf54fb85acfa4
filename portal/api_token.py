"""The API token of the present request, for the audit trail and the access rules. None while a session is used."""

from contextvars import ContextVar
from typing import Any

_token: ContextVar[Any] = ContextVar("api_token", default=None)


def set_present_token(token: Any) -> None:
    """Note the portal.ApiToken with which the request is authenticated; None ends it."""
    _token.set(token)


def get_present_token() -> Any:
    """Return the portal.ApiToken of the request; None for a session, an anonymous caller and outside of a request."""
    return _token.get()


def describe_present_token() -> dict[str, str]:
    """Return the token as data of an audit row: its name and id. Empty without one."""
    token = get_present_token()
    return {"token": token.name, "token_id": str(token.pk), "token_kind": token.kind} if token else {}
