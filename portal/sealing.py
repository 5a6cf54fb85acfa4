"""Encryption at rest for secrets that must be read again (targets, signing secrets).

A database dump does not reveal them. They are encrypted (Fernet: AES-128-CBC with HMAC-SHA256) with a key derived from
SECRET_KEY, which is not in the database; database and key together do reveal them. After SECRET_KEY changes, nothing
sealed before can be read. Each channel then says so: enter its target again, and create a new signing secret for a
webhook.
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
    """Return the secret; None if it was sealed with another SECRET_KEY."""
    try:
        return cipher(settings.SECRET_KEY).decrypt(sealed).decode()
    except InvalidToken:
        return None


@functools.cache
def cipher(secret_key: str) -> Fernet:
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=PURPOSE).derive(secret_key.encode())
    return Fernet(base64.urlsafe_b64encode(key))
