"""Fixtures for the tests of sign-in and administration."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal import auth as totp
from django.core.cache import cache
from django.db import connection
from django.http import HttpResponse
from django.test import Client

from portal.models import AuditEvent, User


@pytest.fixture(autouse=True)
def clear_rates() -> None:
    """Clear the cache, in which allauth counts attempts across tests."""
    cache.clear()


class ApiClient(Client):
    """A client of the session API that sends the CSRF token with unsafe methods. CSRF checks are enforced."""

    def __init__(self) -> None:
        super().__init__(enforce_csrf_checks=True)
        self.get("/api/v1/auth/session")

    def send(self, path: str, body: Any = None, *, token: str | None = None) -> Any:
        token = self.cookies["csrftoken"].value if token is None else token
        data = body if isinstance(body, str) else json.dumps({} if body is None else body)
        return self.post(path, data, content_type="application/json", headers={"X-CSRFToken": token})

    def sign_in(self, user: User, password: str, **more: Any) -> Any:
        return self.send("/api/v1/auth/login", {"email": user.email, "password": password, **more})

    def sign_out(self) -> Any:
        return self.send("/api/v1/auth/logout")


@pytest.fixture
def api() -> ApiClient:
    return ApiClient()


@pytest.fixture
def authenticator(settings: Any) -> Callable[[User], Callable[[], str]]:
    """Give a person an authenticator app. Each call of the result returns a new code."""
    # A test may cross the edge of a 30-second window, and needs several codes within one.
    settings.MFA_TOTP_TOLERANCE = 2

    def activate(user: User) -> Callable[[], str]:
        secret = totp.generate_totp_secret()
        totp.TOTP.activate(user, secret)
        counters = totp.yield_hotp_counters_from_time()
        next(counters)
        return lambda: totp.format_hotp_value(totp.hotp_value(secret, next(counters)))

    return activate


@pytest.fixture
def recovery_codes() -> Callable[[User], list[str]]:
    return lambda user: RecoveryCodes.activate(user).get_unused_codes()


@contextmanager
def acting_as(role: str) -> Iterator[None]:
    """Work as another role of the database, in the same transaction: `postgres`, a superuser, or MAINTENANCE."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET CONSTRAINTS ALL IMMEDIATE; SET ROLE {role}")
        try:
            yield
        finally:
            cursor.execute("RESET ROLE")


@contextmanager
def without_triggers() -> Iterator[None]:
    """Write past the triggers of the audit trail, as only a superuser of the database can."""
    with acting_as("postgres"), connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        yield
        cursor.execute("SET session_replication_role = origin")


def audit_kinds() -> list[str]:
    """Return the kinds of all audit rows, oldest first."""
    return list(AuditEvent.objects.order_by("id").values_list("kind", flat=True))


def get_main(response: HttpResponse) -> str:
    """Return the main element of the page."""
    page = response.content.decode()
    return page[page.index("<main") : page.index("</main>")]
