"""Secrets that must be read again (targets, signing secrets), sealed at rest.

A database dump alone does not give them away: they are encrypted (Fernet: AES-128-CBC with HMAC-SHA256) under a key that
is derived from SECRET_KEY, which is not in the database. Whoever has both has the secrets. When SECRET_KEY is changed,
nothing that was sealed before opens any more: each channel says so, its target is typed in again, and a webhook gets a
new signing secret.
"""

import base64
import functools

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

PURPOSE = b"portal.notifications"


def seal(secret: str) -> str:
    return cipher(settings.SECRET_KEY).encrypt(secret.encode()).decode()


def unseal(sealed: str) -> str | None:
    """What was sealed; None when it was sealed under another SECRET_KEY."""
    try:
        return cipher(settings.SECRET_KEY).decrypt(sealed).decode()
    except InvalidToken:
        return None


@functools.cache
def cipher(secret_key: str) -> Fernet:
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=PURPOSE).derive(secret_key.encode())
    return Fernet(base64.urlsafe_b64encode(key))
