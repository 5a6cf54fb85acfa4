"""`Idempotency-Key`: the same key and body give the same object, another body is refused.

The key is written in the transaction that makes the object, so a retry after a lost reply finds both or neither.
Scope: organization and person (facts: Stripe's rule). Keys are kept as long as what they made.
"""

import hashlib
import json
from typing import Any

from django.db import models
from django.db.models.functions import Now

from portal.errors import PortalError

MAX_KEY_LENGTH = 255


class IdempotencyKey(models.Model):
    organization = models.ForeignKey("portal.Organization", on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey("portal.User", on_delete=models.CASCADE, related_name="+")
    key = models.CharField(max_length=MAX_KEY_LENGTH)
    fingerprint = models.CharField(max_length=64)
    subject = models.CharField(max_length=120)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "user", "key"], name="idempotency_key_once"),
        ]

    def __str__(self) -> str:
        return self.key


def fingerprint_of(command: str, request: dict[str, Any]) -> str:
    """SHA-256 over the command's name and its canonical request."""
    return hashlib.sha256(json.dumps([command, request], sort_keys=True).encode()).hexdigest()


def find_earlier(*, organization: Any, user: Any, key: str | None, fingerprint: str) -> str | None:
    """Return the subject that this key made before, None when the key is new or absent.

    Raises PortalError 400 for a key that is too long, 422 `idempotency_mismatch` for a key used with another request.
    """
    if not key:
        return None
    if len(key) > MAX_KEY_LENGTH:
        raise PortalError("bad_idempotency_key", f"Idempotency-Key is longer than {MAX_KEY_LENGTH} characters.", 400)
    earlier = IdempotencyKey.objects.filter(organization=organization, user=user, key=key).first()
    if earlier is None:
        return None
    if earlier.fingerprint != fingerprint:
        raise PortalError(
            "idempotency_mismatch",
            f"This Idempotency-Key was used for {earlier.subject} with another request. Use a new key.",
            422,
        )
    return earlier.subject
