"""Objects of rows, made as fast as Python makes any object."""

from collections.abc import Collection
from typing import Any, Self

from django.db import models
from django.db.models.base import ModelState


class QuicklyRead(models.Model):
    """A model whose objects a page reads by the hundred.

    Django calls the model's constructor for each row, which looks at each field and sends two signals: for sixty fields
    that takes 15 times as long as this. So such a model has no `__init__`, and nothing listens to pre_init and post_init.
    """

    class Meta:
        abstract = True

    @classmethod  # the stubs know the signature of a later Django
    def from_db(cls, db: str | None, field_names: Collection[str], values: Collection[Any]) -> Self:  # type: ignore[override]
        """Return the object of a row. A column that was not read is read when it is used, as always."""
        row = cls.__new__(cls)
        state = ModelState()
        state.adding, state.db = False, db
        row.__dict__ |= {"_state": state, **dict(zip(field_names, values, strict=True))}
        return row
