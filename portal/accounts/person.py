"""Finds the person of a request, and enters the context of their organizations (portal/tenancy.py).

The statement that reads the session reads its person, and their memberships and organizations, and enters the context as
well. It runs for each request, so a change of any of them takes effect with the next one.
"""

from contextvars import ContextVar
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from allauth.account.auth_backends import AuthenticationBackend as AllauthBackend
from django.contrib.auth import middleware
from django.contrib.auth.models import AnonymousUser
from django.db import OperationalError, connection
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from portal import tenancy
from portal.models import Access, Organization, User
from portal.times import DEFAULT_TIMES, TimeChoice, choose_times

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
        choose_times(DEFAULT_TIMES)
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
        if person is None or not self.user_can_authenticate(person):
            return None
        choose_times(TimeChoice(person.time_zone, person.has_absolute_times))
        return person


def open_session(stored_key: str) -> OpenedSession | None:
    """Read a session and its person, and enter the person's organizations. None if it has ended.

    `stored_key`: as in the column. The list of devices names the session's person. If the session is not in it yet,
    AuthenticationBackend calls `enter_person`.
    *Costs* one statement.
    """
    opened, person = open_request(stored_key, None)
    _person.set(person)
    return opened


def enter_person(user_id: int) -> User | None:
    """Read a person and enter their organizations. *Costs* one statement."""
    return open_request(None, user_id)[1]


def open_request(stored_key: str | None, user_id: int | None) -> tuple[OpenedSession | None, User | None]:
    """Read a session and its person, or a person alone, with their access, and enter their organizations.

    The statement changes nothing but the context, so it is sent again on a new connection if a kept one is dead.
    """
    is_kept = connection.connection is not None and not connection.in_atomic_block
    try:
        rows = read_rows(stored_key, user_id)
    except OperationalError:
        if not is_kept or not connection.connection.closed:
            raise
        connection.close()
        rows = read_rows(stored_key, user_id)
    session, has_second_factor, person = rows[0][:2], rows[0][2], rows[0][3 : 3 + len(names_of(User))]
    own = [row[3 + len(names_of(User)) :] for row in rows]  # role and organization
    held = [values for values in own if values[0] is not None]
    tenancy.enter(tenancy.context_of(values[1] for values in held), connection=connection)
    opened = OpenedSession(*session) if session[0] is not None else None
    if person[0] is None:
        return opened, None
    user = User.from_db(connection.alias, names_of(User), person)
    user.access = Access(has_second_factor, held, names_of(Organization))
    return opened, user


def read_rows(stored_key: str | None, user_id: int | None) -> list[tuple[Any, ...]]:
    """Return a row for each organization of the person; one row without an organization if there is none."""
    with connection.cursor() as cursor:
        cursor.execute(statement(), [stored_key, timezone.now(), user_id])
        return list(cursor.fetchall())


@cache
def statement() -> str:
    """Return the call of `portal_open_request` (migration 0043) with the columns that this release knows."""
    person = ", ".join(f"(person).{name}" for name in names_of(User))
    organization = ", ".join(f"(organization).{name}" for name in names_of(Organization))
    columns = f"session_data, expire_date, has_second_factor, {person}, role, {organization}"
    return f"SELECT {columns} FROM portal_open_request(%s, %s, %s)"  # noqa: S608 - our own


@cache
def names_of(model: type[User | Organization]) -> list[str]:
    """Return the columns of the model, the id first, which are also the names of its attributes."""
    return [field.attname for field in model._meta.concrete_fields]


def follow_sign_in(user: User, **_: Any) -> None:
    """Enter the organizations of the person who has just signed in."""
    read = enter_person(user.pk)
    user.access = read.access if read else None


def follow_sign_out(**_: Any) -> None:
    tenancy.enter(tenancy.NOTHING)
