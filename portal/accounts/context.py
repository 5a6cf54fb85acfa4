"""Opens a person's context of organizations (portal/tenancy.py) in the statement that reads their session."""

from contextvars import ContextVar
from typing import Any

from allauth.account.auth_backends import AuthenticationBackend as AllauthBackend
from django.contrib.auth import middleware
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from portal import tenancy
from portal.models import User

# The person that the last session of this request belongs to, as read with it.
_person: ContextVar[User | None] = ContextVar("person", default=None)


class AuthenticationMiddleware(middleware.AuthenticationMiddleware):
    """Set `request.user`, whose session opens the context. Nobody has none, whatever the session says."""

    def process_request(self, request: HttpRequest) -> None:
        super().process_request(request)
        _person.set(None)
        request.session.opens_context = True  # type: ignore[attr-defined] # our own store
        request.user = SimpleLazyObject(lambda: find_person(request))  # type: ignore[assignment]


def find_person(request: HttpRequest) -> User | AnonymousUser:
    person: User | AnonymousUser = middleware.get_user(request)
    if not person.is_authenticated:
        tenancy.enter(tenancy.NOTHING)
    return person


class AuthenticationBackend(AllauthBackend):  # type: ignore[misc] # allauth ships no types
    """allauth's backend. Takes the person that was read with the session."""

    def get_user(self, user_id: int | str) -> User | None:
        person = _person.get()
        if person is None or person.pk != int(user_id):
            person = enter_person(int(user_id))
        return person if person is not None and self.user_can_authenticate(person) else None


def open_session(stored_key: str) -> tuple[str | None, Any]:
    """Read a session and its person, and enter the person's organizations. Returns data and end, (None, None) if none.

    The person is known from the list of devices. A session that is not in it yet, right after signing in, leaves it to
    `enter_person`. *Costs* one statement.
    """
    columns = ", ".join(f"person.{field.column}" for field in User._meta.concrete_fields)
    statement = (
        f"SELECT opened.session_data, opened.expire_date, opened.organizations, {columns}"  # noqa: S608 - our own columns
        " FROM portal_open_session(%s, %s) AS opened LEFT JOIN portal_user AS person ON person.id = opened.person_id"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [stored_key, timezone.now()])
        data, expire_date, context, *values = cursor.fetchone()
    tenancy.enter(context, connection=connection)
    _person.set(as_person(values))
    return data, expire_date


def enter_person(user_id: int) -> User | None:
    """Read a person and enter their organizations. *Costs* one statement."""
    columns = ", ".join(f"person.{field.column}" for field in User._meta.concrete_fields)
    statement = (
        f"SELECT entered.organizations, {columns} FROM portal_enter_person(%s) AS entered (organizations)"  # noqa: S608
        " LEFT JOIN portal_user AS person ON person.id = %s"
    )
    with connection.cursor() as cursor:
        cursor.execute(statement, [user_id, user_id])
        context, *values = cursor.fetchone()
    tenancy.enter(context, connection=connection)
    return as_person(values)


def as_person(values: list[Any]) -> User | None:
    """Return the person with these values of all columns; None if they are those of an outer join without a row."""
    names = [field.attname for field in User._meta.concrete_fields]
    return User.from_db(connection.alias, names, values) if values[names.index("id")] is not None else None


def follow_sign_in(user: User, **_: Any) -> None:
    """Enter the organizations of the person who has just signed in."""
    enter_person(user.pk)


def follow_sign_out(**_: Any) -> None:
    tenancy.enter(tenancy.NOTHING)
