"""Secrets of API tokens, and the token of a request.

A token is `aop_` and 32 random bytes in base64url. The database holds the SHA-256 of the whole token. It needs no salt and
no slow hash: 256 random bits cannot be guessed.
"""

import hashlib
import re
import secrets
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import Q
from django.db.models.functions import Now
from django.http import HttpRequest

from portal.models import ApiToken

PREFIX = "aop_"
RANDOM_BYTES = 32
HINT_LENGTH = len(PREFIX) + 4
SHAPE = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{43}}")
# The time of the last use is written at most so often.
USE_SECONDS = 5 * 60


def new_secret() -> str:
    return PREFIX + secrets.token_urlsafe(RANDOM_BYTES)


def hash_secret(secret: str) -> str:
    """Return the SHA-256 of a token as the column holds it.

    >>> len(hash_secret("aop_x"))
    64
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def read_bearer(request: HttpRequest) -> str | None:
    """Return the token of the Authorization header; None if there is none or it is not one of the portal's."""
    scheme, _, value = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    value = value.strip()
    return value if scheme.lower() == "bearer" and value.startswith(PREFIX) else None


def is_in_query(request: HttpRequest) -> bool:
    """Return whether the address contains a token. Addresses are logged by proxies and kept in histories."""
    query = request.META.get("QUERY_STRING", "")
    return PREFIX in query and bool(SHAPE.search(query))


def is_use_due(token: ApiToken, now: datetime) -> bool:
    """Return whether the time of this use must be written. `now`: the time of the request."""
    return token.last_used_at is None or now - token.last_used_at >= timedelta(seconds=USE_SECONDS)


def store_use(token_id: UUID) -> None:
    """Write the time of the use, unless another request has done so just now. *Costs* one query."""
    before = Q(last_used_at__isnull=True) | Q(last_used_at__lt=Now() - timedelta(seconds=USE_SECONDS))
    ApiToken.objects.filter(before, pk=token_id).update(last_used_at=Now())
