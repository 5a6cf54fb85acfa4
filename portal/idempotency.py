"""`Idempotency-Key`: the same key and body return the same object; the same key with another body is refused.

The key is written in the transaction that creates the object, so a retry after a lost reply finds both or neither.
A key is scoped to one organization and person, and kept for IDEMPOTENCY_RETENTION_DAYS. The rules are Stripe's:
https://docs.stripe.com/api/idempotent_requests
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Self

from portal.database.statements import insert
from portal.errors import PortalError
from portal.models import IdempotencyKey, Organization, User
from portal.models.idempotency import MAX_KEY_LENGTH

STORE = """
INSERT INTO portal_idempotencykey (organization_id, user_id, key, fingerprint, subject)
SELECT organization_id, %s, %s, %s, {subject} FROM {rows}
"""


@dataclass(frozen=True)
class KeyUse:
    """One use of a key: who sent it, and for which request. With `key` None nothing is looked up or stored."""

    organization: Organization
    user: User
    key: str | None
    fingerprint: str

    @classmethod
    def for_request(
        cls, command: str, request: dict[str, Any], *, organization: Organization, user: User, key: str | None
    ) -> Self:
        """Return the use of a key. The fingerprint is a SHA-256 of the command's name and its canonical request.

        *Raises* PortalError 400 `bad_idempotency_key`.
        """
        if key is not None and not (1 <= len(key) <= MAX_KEY_LENGTH and key.isprintable()):
            message = f"Idempotency-Key takes 1 to {MAX_KEY_LENGTH} printable characters."
            raise PortalError("bad_idempotency_key", message, 400)
        canonical = json.dumps([command, request], sort_keys=True)
        return cls(organization, user, key, hashlib.sha256(canonical.encode()).hexdigest())

    def find_earlier(self) -> str | None:
        """Return the id that this key created before; None for a new key.

        *Raises* PortalError 422 `idempotency_mismatch`.
        """
        if self.key is None:
            return None
        earlier = IdempotencyKey.objects.filter(organization=self.organization, user=self.user, key=self.key).first()
        if earlier is None:
            return None
        if earlier.fingerprint != self.fingerprint:
            raise PortalError(
                "idempotency_mismatch",
                f"This Idempotency-Key was already used for {earlier.subject} with a different request. Use a new key.",
                422,
            )
        return earlier.subject

    def store_sql(self, rows: str, *, subject: str = "id::text") -> tuple[str, list[Any]]:
        """Return the statement that stores the key for the one row of `rows`, which has `organization_id`.

        `subject`: the expression of the subject. Empty with no key. It is a part of the statement that changes the row, and
        raises IntegrityError for a duplicate.
        """
        if self.key is None:
            return "", []
        return STORE.format(rows=rows, subject=subject), [self.user.pk, self.key, self.fingerprint]

    def store(self, subject: str) -> None:
        """Store the key in the transaction that creates the subject. Raises IntegrityError for a duplicate."""
        if self.key is not None:
            own = {"organization": self.organization, "user": self.user, "key": self.key}
            insert([IdempotencyKey(**own, fingerprint=self.fingerprint, subject=subject)])
