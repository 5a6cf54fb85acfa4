"""Finds the person of a request, and enters the context of their organizations (portal/tenancy.py).

The statement that reads the session reads its person, and their memberships and organizations, and enters the context as
well. It runs for each request, so a change of any of them takes effect with the next one. The statement that reads an API
token does the same for the token's person and its one organization. A token is read only if no session is valid.
"""

from collections.abc import Callable
from contextvars import ContextVar
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from allauth.account.auth_backends import AuthenticationBackend as AllauthBackend
from django.contrib.auth import middleware
from django.contrib.auth.models import AnonymousUser
from django.db import OperationalError, connection
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from portal import tenancy
from portal.accounts.tokens import hash_secret, is_use_due, read_bearer, store_use
from portal.after_response import write_after_response
from portal.api_token import set_present_token
from portal.errors import is_api
from portal.models import Access, ApiToken, Organization, User
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
        set_present_token(None)
        choose_times(DEFAULT_TIMES)
        request.session.opens_context = True  # type: ignore[attr-defined] # our own store
        request.user = SimpleLazyObject(lambda: find_person(request))  # type: ignore[assignment] # becomes one when read

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        set_present_token(None)
        return response


def find_person(request: HttpRequest) -> User | AnonymousUser:
    """Return the person of the session, else of the API token. Without either, end the context that the session opened.

    A token is taken by the API only: a page shows and changes more than a scope says.
    """
    person: User | AnonymousUser = middleware.get_user(request)
    if person.is_authenticated:
        return person
    secret = read_bearer(request) if is_api(request) else None
    owner = open_token(secret) if secret else None
    if owner is None:
        tenancy.enter(tenancy.NOTHING)
        return person
    return owner


def open_token(secret: str) -> User | None:
    """Read a token and its person, and enter its organization. None if it is unknown, expired or revoked.

    None too if its person is switched off or no longer a member, or if the organization is suspended.
    *Costs* one statement. The time of the use is written after the response.
    """
    now = timezone.now()
    rows = read_on_live_connection(lambda: read_token_rows(hash_secret(secret), now))
    if not rows:
        return None
    columns, persons = names_of(ApiToken), names_of(User)
    token = ApiToken.from_db(connection.alias, columns, rows[0][1 : 1 + len(columns)])
    end = 1 + len(columns) + len(persons)
    tenancy.enter(tenancy.context_of([token.organization_id]), connection=connection)
    user = User.from_db(connection.alias, persons, rows[0][1 + len(columns) : end])
    user.access = Access(rows[0][0], [rows[0][end:]], names_of(Organization))
    set_present_token(token)
    if is_use_due(token, now):
        write_after_response(lambda: store_use(token.pk))
    return user


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

    *Costs* one statement.
    """
    rows = read_on_live_connection(lambda: read_rows(stored_key, user_id))
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


def read_on_live_connection(read: Callable[[], list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
    """Return the rows. The statement changes nothing but the context, so it is sent again if a kept connection is dead."""
    is_kept = connection.connection is not None and not connection.in_atomic_block
    try:
        return read()
    except OperationalError:
        if not is_kept or not connection.connection.closed:
            raise
        connection.close()
        return read()


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


def read_token_rows(secret_hash: str, moment: datetime) -> list[tuple[Any, ...]]:
    """Return one row for a token that is valid at the moment, none for others."""
    with connection.cursor() as cursor:
        cursor.execute(token_statement(), [secret_hash, moment])
        return list(cursor.fetchall())


@cache
def token_statement() -> str:
    """Return the call of `portal_open_token` (migration 0051) with the columns that this release knows."""
    parts = (("token", ApiToken), ("person", User))
    both = ", ".join(f"({part}).{name}" for part, model in parts for name in names_of(model))
    organization = ", ".join(f"(organization).{name}" for name in names_of(Organization))
    return f"SELECT has_second_factor, {both}, role, {organization} FROM portal_open_token(%s, %s)"  # noqa: S608 - our own


@cache
def names_of(model: type[User | Organization | ApiToken]) -> list[str]:
    """Return the columns of the model, the id first, which are also the names of its attributes."""
    return [field.attname for field in model._meta.concrete_fields]


def follow_sign_in(user: User, **_: Any) -> None:
    """Enter the organizations of the person who has just signed in."""
    read = enter_person(user.pk)
    user.access = read.access if read else None


def follow_sign_out(**_: Any) -> None:
    tenancy.enter(tenancy.NOTHING)
