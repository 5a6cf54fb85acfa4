"""The column `revision` of what a live page shows."""

from django.db import models

from portal.models.reading import QuicklyRead


class Revised(QuicklyRead):
    """A row that counts its changes (portal/database/revisions.py), so that a page can ask whether it has changed."""

    revision = models.BigIntegerField(
        default=0,
        db_default=0,
        editable=False,
        help_text="Counts its changes that pages show. Only a trigger writes it.",
    )

    class Meta:
        abstract = True
