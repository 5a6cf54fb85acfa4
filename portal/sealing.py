"""Encryption at rest for secrets that must be read again: targets, signing secrets, seeds of second factors.

A database dump does not reveal them. They are encrypted (Fernet: AES-128-CBC with HMAC-SHA256) with keys derived from
SECRET_KEY, one for each purpose, which are not in the database; database and key together do reveal them.

After SECRET_KEY changes, what was sealed before can be read while the old key is in SECRET_KEY_FALLBACKS.
`manage.py reseal` seals everything with the new key, and the old one can go. Without its key a secret cannot be read:
each channel then says so, and the person sets their second factor up again.
"""

import base64
import functools
from enum import Enum

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


class Purpose(bytes, Enum):
    """What a key is for: a secret sealed for one purpose cannot be read for another."""

    NOTIFICATIONS = b"portal.notifications"
    MFA = b"portal.mfa"


def seal(secret: str, purpose: Purpose = Purpose.NOTIFICATIONS) -> str:
    return cipher(settings.SECRET_KEY, purpose).encrypt(secret.encode()).decode()


def unseal(sealed: str, purpose: Purpose = Purpose.NOTIFICATIONS) -> str | None:
    """Return the secret; None if its key is neither SECRET_KEY nor in SECRET_KEY_FALLBACKS, or if it is not sealed."""
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    try:
        return MultiFernet([cipher(key, purpose) for key in keys]).decrypt(sealed).decode()
    except (InvalidToken, ValueError):  # ValueError: not even ASCII
        return None


def is_newest(sealed: str, purpose: Purpose) -> bool:
    """Return whether the secret was sealed with the present SECRET_KEY."""
    try:
        cipher(settings.SECRET_KEY, purpose).decrypt(sealed)
    except (InvalidToken, ValueError):
        return False
    return True


@functools.cache
def cipher(secret_key: str, purpose: Purpose) -> Fernet:
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.value).derive(secret_key.encode())
    return Fernet(base64.urlsafe_b64encode(key))
