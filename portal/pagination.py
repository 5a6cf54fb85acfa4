"""Pagination of every list in the API and on pages: `items, total, skip, limit, has_more`."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.db.models import Aggregate, Model, QuerySet, Subquery, Value
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce

Row = TypeVar("Row", bound=Model)
Item = TypeVar("Item")

DEFAULT_LIMIT = 50
MAX_LIMIT = 100
MAX_SKIP = 2**31


@dataclass(frozen=True)
class Page(Generic[Item]):
    """One page of a list that has a total order."""

    items: list[Item]
    total: int
    skip: int
    limit: int

    @property
    def has_more(self) -> bool:
        return self.skip + len(self.items) < self.total

    @property
    def first(self) -> int:
        return self.skip + 1 if self.items else 0

    @property
    def last(self) -> int:
        return self.skip + len(self.items)

    @property
    def next_skip(self) -> int | None:
        return self.skip + self.limit if self.has_more else None

    @property
    def previous_skip(self) -> int | None:
        return max(0, self.skip - self.limit) if self.skip else None

    def envelope(self, records: Collection[Any], **filters: Any) -> dict[str, Any]:
        """Return the JSON body: the items' records, the other four keys, and each filter's value or `None`.

        The caller serializes all items together, because one serializer per item would rebuild its fields each time.
        """
        return {
            "items": records,
            "total": self.total,
            "skip": self.skip,
            "limit": self.limit,
            "has_more": self.has_more,
            **filters,
        }


def paginate(queryset: QuerySet[Row], *, skip: int, limit: int) -> Page[Row]:
    """Return one page of the query set, which must have a total order. *Costs* two queries: a count and the rows."""
    total = queryset.count()
    return Page(items=list(queryset[skip : skip + limit]), total=total, skip=skip, limit=limit)


def paginate_list(items: list[Item], *, skip: int, limit: int) -> Page[Item]:
    """Return one page of a list that does not come from a table."""
    return Page(items=items[skip : skip + limit], total=len(items), skip=skip, limit=limit)


def aggregate_rows(rows: QuerySet[Any], aggregate: Aggregate) -> Combinable:
    """Return an aggregate over all rows of the query set, for use inside of another query; 0 without rows."""
    whole = rows.order_by().annotate(whole=Value(1)).values("whole")
    return Coalesce(Subquery(whole.annotate(aggregate=aggregate).values("aggregate")), 0)
