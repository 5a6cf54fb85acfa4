"""The session engine (SESSION_ENGINE): the database holds only the SHA-256 of each session's key.

The key in the cookie signs a person in, so it must not be readable in the database. The middleware hashes the cookie,
and from there on `session_key` is the hash: in django_session, in allauth's usersessions, and everywhere in the code.
A hash from a database dump is no key, because the middleware hashes every cookie.
"""

import base64
import hashlib

from django.conf import settings
from django.contrib.sessions.backends.base import VALID_KEY_CHARS
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessionStore
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import get_random_string

COOKIE_KEY_LENGTH = 32


def hash_key(cookie_key: str) -> str:
    """Return the SHA-256 of a cookie's key. In base85 it has 40 characters, the width of the columns that hold it.

    >>> len(hash_key("a" * 32))
    40
    """
    return base64.b85encode(hashlib.sha256(cookie_key.encode()).digest()).decode()


class SessionStore(DatabaseSessionStore):
    """Django's database store under hashed keys.

    `cookie_key` is the key of the cookie, known only if this request sent or created it.
    """

    def __init__(self, session_key: str | None = None, *, cookie_key: str | None = None) -> None:
        super().__init__(hash_key(cookie_key) if cookie_key else session_key)
        self.cookie_key = cookie_key

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
