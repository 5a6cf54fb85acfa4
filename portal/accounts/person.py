"""Finds the person of a request, and enters the context of their organizations (portal/tenancy.py).

One statement reads the session and its person, and enters the context. It runs for each request, so a change of the person
or of a membership takes effect with the next one.
"""

from contextvars import ContextVar
from datetime import datetime
from typing import Any, NamedTuple

from allauth.account.auth_backends import AuthenticationBackend as AllauthBackend
from django.contrib.auth import middleware
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from portal import tenancy
from portal.models import User

# The person of the session that this request has read.
_person: ContextVar[User | None] = ContextVar("person", default=None)


class OpenedSession(NamedTuple):
    """The columns of a session, for its store."""

    session_data: str
    expire_date: datetime


class AuthenticationMiddleware(middleware.AuthenticationMiddleware):
    """Set `request.user`, and let the request's own session open the context."""

    def process_request(self, request: HttpRequest) -> None:
        super().process_request(request)
        _person.set(None)
        request.session.opens_context = True  # type: ignore[attr-defined] # our own store
        request.user = SimpleLazyObject(lambda: find_person(request))  # type: ignore[assignment] # becomes one when read


def find_person(request: HttpRequest) -> User | AnonymousUser:
    """Return the person of the session. Without a signed-in person, end the context that the session opened."""
    person: User | AnonymousUser = middleware.get_user(request)
    if not person.is_authenticated:
        tenancy.enter(tenancy.NOTHING)
    return person


class AuthenticationBackend(AllauthBackend):  # type: ignore[misc] # allauth ships no types
    """allauth's backend. Does not query the person again who was read with the session."""

    def get_user(self, user_id: int | str) -> User | None:
        person = _person.get()
        if person is None or person.pk != int(user_id):
            person = enter_person(int(user_id))
        return person if person is not None and self.user_can_authenticate(person) else None


def open_session(stored_key: str) -> OpenedSession | None:
    """Read a session and its person, and enter the person's organizations. None if it has ended.

    `stored_key`: as in the column. The list of devices names the session's person. If the session is not in it yet,
    AuthenticationBackend calls `enter_person`.
    *Costs* one statement.
    """
    statement = (
        f"SELECT opened.session_data, opened.expire_date, opened.organizations, {person_columns()}"  # noqa: S608 - our own
        " FROM portal_open_session(%s, %s) AS opened LEFT JOIN portal_user AS person ON person.id = opened.person_id"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [stored_key, timezone.now()])
        data, expire_date, context, *values = cursor.fetchone()
    tenancy.enter(context, connection=connection)
    _person.set(as_person(values))
    return OpenedSession(data, expire_date) if data is not None else None


def enter_person(user_id: int) -> User | None:
    """Read a person and enter their organizations. *Costs* one statement."""
    statement = (
        f"SELECT entered.organizations, {person_columns()} FROM portal_enter_person(%s) AS entered (organizations)"  # noqa: S608 - our own
        " LEFT JOIN portal_user AS person ON person.id = %s"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [user_id, user_id])
        context, *values = cursor.fetchone()
    tenancy.enter(context, connection=connection)
    return as_person(values)


def person_columns() -> str:
    return ", ".join(f"person.{field.column}" for field in User._meta.concrete_fields)


def as_person(values: list[Any]) -> User | None:
    """Return the person with these values of all columns; None if they are those of an outer join without a row."""
    names = [field.attname for field in User._meta.concrete_fields]
    return User.from_db(connection.alias, names, values) if values[names.index("id")] is not None else None


def follow_sign_in(user: User, **_: Any) -> None:
    """Enter the organizations of the person who has just signed in."""
    enter_person(user.pk)


def follow_sign_out(**_: Any) -> None:
    tenancy.enter(tenancy.NOTHING)
