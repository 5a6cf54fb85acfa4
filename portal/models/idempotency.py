"""Used Idempotency-Keys, kept for IDEMPOTENCY_RETENTION_DAYS. The rules are in portal/idempotency.py."""

from django.db import models
from django.db.models.functions import Now

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
