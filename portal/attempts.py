"""What the current request tries: the organization it acts on, and the refusal. AuditMiddleware reads both afterwards."""

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any


@dataclass
class Attempt:
    organization: Any = None
    refusal: Any = None


attempt_var: ContextVar[Attempt | None] = ContextVar("attempt", default=None)


def note_organization(organization: Any) -> None:
    """Note the organization that a person's request acts on. Does nothing outside of a request."""
    attempt = attempt_var.get()
    if attempt:
        attempt.organization = organization


def note_refusal(error: Any) -> None:
    """Note the PortalError with which the request, or a part of it, is refused."""
    attempt = attempt_var.get()
    if attempt:
        attempt.refusal = error
