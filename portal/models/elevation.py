"""Access of staff to one organization for a limited time, with a reason. The rules are in portal/elevation.py."""

from typing import Self

from django.db import models
from django.db.models.functions import Now

REASON_LENGTH = 500


class ElevationQuerySet(models.QuerySet["Elevation"]):
    def open(self) -> Self:
        """Return those that were neither left nor marked as expired. One may be past its time."""
        return self.filter(ended_at__isnull=True)

    def valid(self) -> Self:
        """Return those that give access now."""
        return self.open().filter(expires_at__gt=Now())


class Elevation(models.Model):
    organization = models.ForeignKey("portal.Organization", on_delete=models.CASCADE, related_name="+")
    staff = models.ForeignKey("portal.User", on_delete=models.CASCADE, related_name="+")
    reason = models.CharField(max_length=REASON_LENGTH)
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)

    objects = ElevationQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["staff"], condition=models.Q(ended_at__isnull=True), name="elevation_one_open"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.staff} in {self.organization} until {self.expires_at:%H:%M:%S}"
