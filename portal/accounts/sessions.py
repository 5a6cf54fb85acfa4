"""The session engine (SESSION_ENGINE): hashed keys, and sessions that end when idle.

The database holds only the SHA-256 of each session's key.

The key in the cookie signs a person in, so it must not be readable in the database. The middleware hashes the cookie,
and from there on `session_key` is the hash: in django_session, in allauth's usersessions, and everywhere in the code.
A hash from a database dump does not work as a cookie, because the middleware hashes every cookie.

A session ends SESSION_COOKIE_AGE seconds after sign-in, whatever happens, and SESSION_IDLE_SECONDS after its last activity.
`expire_date` is the earlier of the two, so each request checks both with the one row that it reads.
Activity moves it, at most once in ACTIVITY_SECONDS, after the response is sent (devices.py). So an idle session ends up
to ACTIVITY_SECONDS early.
"""

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends.base import VALID_KEY_CHARS, UpdateError
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessionStore
from django.contrib.sessions.base_session import AbstractBaseSession
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.crypto import get_random_string

from portal.accounts.person import OpenedSession, open_session

COOKIE_KEY_LENGTH = 32
ACTIVITY_SECONDS = 5 * 60
ENDS_AT = "ends_at"  # in the session's data: seconds since the epoch


def hash_key(cookie_key: str) -> str:
    """Return the SHA-256 of a cookie's key. In base85 it has 40 characters, the width of the columns that hold it.

    >>> len(hash_key("a" * 32))
    40
    """
    return base64.b85encode(hashlib.sha256(cookie_key.encode()).digest()).decode()


class SessionStore(DatabaseSessionStore):
    """Django's database store under hashed keys. The session of a request also opens the context of its person.

    `cookie_key` is the key of the cookie, known only if this request sent or created it.
    """

    opens_context = False

    def __init__(self, session_key: str | None = None, *, cookie_key: str | None = None) -> None:
        super().__init__(hash_key(cookie_key) if cookie_key else session_key)
        self.cookie_key = cookie_key
        self.expire_date: datetime | None = None

    @property
    def ends_at(self) -> datetime:
        """When the session ends, whatever happens."""
        stored = self.get(ENDS_AT)
        lifetime = timedelta(seconds=settings.SESSION_COOKIE_AGE)
        return datetime.fromtimestamp(stored, UTC) if stored else timezone.now() + lifetime

    @property
    def is_activity_due(self) -> bool:
        """Whether the activity of this request must be stored."""
        if self.expire_date is None:
            return False
        return self.compute_expire_date() - self.expire_date >= timedelta(seconds=ACTIVITY_SECONDS)

    def compute_expire_date(self) -> datetime:
        return min(timezone.now() + timedelta(seconds=settings.SESSION_IDLE_SECONDS), self.ends_at)

    def begin_lifetime(self) -> None:
        """Count the session's lifetime from now, because the person signs in."""
        self[ENDS_AT] = int(timezone.now().timestamp()) + settings.SESSION_COOKIE_AGE

    def store_activity(self) -> bool:
        """Move the end by idleness, and return whether this request was the first of several to do so.

        Does not revive a session that has ended. *Costs* one query.
        """
        before = self.expire_date
        if before is None:
            return False
        self.expire_date = self.compute_expire_date()
        rows = self.model.objects.filter(session_key=self.session_key, expire_date=before)
        return bool(rows.filter(expire_date__gt=timezone.now()).update(expire_date=self.expire_date))

    def load(self) -> dict[str, Any]:
        row = self._read()
        if row is None:
            self._session_key = None
            return {}
        self.expire_date = row.expire_date
        return self.decode(row.session_data)

    def _read(self) -> AbstractBaseSession | OpenedSession | None:
        if self.opens_context and self.session_key:
            return open_session(self.session_key)
        return self.model.objects.filter(session_key=self.session_key, expire_date__gt=timezone.now()).first()

    def save(self, must_create: bool = False) -> None:
        """Store the session. *Raises* UpdateError if its row is gone, and the error of a database that does not store it.

        Django raises UpdateError for both, and would answer an outage as if the person had signed out meanwhile.
        """
        try:
            super().save(must_create)
        except UpdateError as error:
            failure = error.__context__
            if isinstance(failure, DatabaseError) and failure.__cause__:
                raise failure from failure.__cause__
            raise

    def create_model_instance(self, data: dict[str, Any]) -> AbstractBaseSession:
        data.setdefault(ENDS_AT, int(self.ends_at.timestamp()))
        row = super().create_model_instance(data)
        row.expire_date = self.expire_date = self.compute_expire_date()
        return row

    def get_expiry_age(self, **kwargs: Any) -> int:
        """Return the age that the cookie gets. Idleness does not shorten it: activity sends no new cookie."""
        return int((self.ends_at - timezone.now()).total_seconds())

    # Both are called for each new session. A key that exists already is refused when it is saved.
    def _get_new_session_key(self) -> str:
        self.cookie_key = get_random_string(COOKIE_KEY_LENGTH, VALID_KEY_CHARS)
        return hash_key(self.cookie_key)

    async def _aget_new_session_key(self) -> str:
        return self._get_new_session_key()


class SessionMiddleware(DjangoSessionMiddleware):
    """Django's middleware, with a hash between the cookie and the store."""

    def process_request(self, request: HttpRequest) -> None:
        request.session = SessionStore(cookie_key=request.COOKIES.get(settings.SESSION_COOKIE_NAME))

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        answered = super().process_response(request, response)
        cookie = answered.cookies.get(settings.SESSION_COOKIE_NAME)
        if cookie and cookie.value and isinstance(request.session, SessionStore):
            answered.cookies[settings.SESSION_COOKIE_NAME] = request.session.cookie_key or ""  # keeps the attributes
        return answered
