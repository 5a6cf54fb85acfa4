"""Several query sets that are read in one statement, which is made once and kept (statements.py).

A page needs rows of several tables. Each statement costs a round trip, and making its SQL costs more than running it. Here
the rows of each query set come as one JSON array, and become objects of their models again.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import DateTimeField, GeneratedField, JSONField, QuerySet
from django.db.models.fields.related import RelatedField
from django.db.models.query import ModelIterable
from psycopg import sql

from portal.database.statements import Given, ObjectMaker

PLACEHOLDER = re.compile("%[%s]")


class Together:
    """Query sets by name. Their values are placeholders (`Given`), so that it can be kept.

    Their constants are written into the SQL. PostgreSQL makes one plan for all values of the parameters, and uses a partial
    index only if it knows that the condition holds: `outcome <> 'not_attempted'`, but not `outcome <> $1`.
    """

    def __init__(self, **rows: QuerySet[Any]) -> None:
        self.parts = {name: Part(each) for name, each in rows.items()}
        self.sql = f"SELECT {', '.join(part.sql for part in self.parts.values())}"

    def read(self, **given: Any) -> dict[str, list[Any]]:
        """Return the rows of each query set, for these values of their placeholders. *Costs* one query."""
        with connection.cursor() as cursor:
            cursor.execute(self.sql, given)
            texts: tuple[str | None, ...] = cursor.fetchone()
        pairs = zip(self.parts.items(), texts, strict=True)
        return {name: part.make(text) for (name, part), text in pairs}


class Part:
    """A query set of objects, which may have related objects and annotations, or of tuples, as one value of a row."""

    def __init__(self, rows: QuerySet[Any]) -> None:
        self.compiler = rows.query.get_compiler(connection=connection)
        query = write_constants(*self.compiler.as_sql())
        select = self.compiler.select
        names = ", ".join(f'"{number}"' for number in range(len(select)))
        self.sql = f"(SELECT json_agg(part) FROM ({query}) AS part ({names}))::text"  # noqa: S608 - the ORM's own
        converters = ((at, find_converter(each[0].output_field)) for at, each in enumerate(select))
        self.converters = [(at, converter) for at, converter in converters if converter]
        has_objects = rows._iterable_class is ModelIterable
        self.make_one: Callable[[list[Any]], Any] = ObjectMaker(self.compiler) if has_objects else tuple

    def make(self, text: str | None) -> list[Any]:
        """Return an object or a tuple for each row of the value, which is None without rows.

        The rows' members have the order of the columns.
        """
        values = [list(row.values()) for row in json.loads(text)] if text else []
        for row in values:
            for at, converter in self.converters:
                if row[at] is not None:
                    row[at] = converter(row[at])
        return [self.make_one(row) for row in values]


def write_constants(query: str, parameters: Iterable[Any]) -> str:
    """Return the SQL with its constants as literals, and with its placeholders by name."""
    connection.ensure_connection()
    values = iter(parameters)

    def write(found: re.Match[str]) -> str:
        if found[0] == "%%":
            return "%%"
        value = next(values)
        if isinstance(value, Given):
            return f"%({value.name})s"
        return sql.Literal(value).as_string(connection.connection).replace("%", "%%")

    return PLACEHOLDER.sub(write, query)


def find_converter(field: Any) -> Callable[[Any], Any] | None:
    """Return what makes a Python value of a column's JSON, None if JSON has it already."""
    while isinstance(field, GeneratedField | RelatedField):
        field = field.output_field if isinstance(field, GeneratedField) else field.target_field
    if isinstance(field, DateTimeField):
        return datetime.fromisoformat
    is_plain = isinstance(field, JSONField) or field.get_internal_type() in PLAIN
    return None if is_plain else field.to_python


# JSON has the values of these.
PLAIN = {
    *("AutoField", "BigAutoField", "BigIntegerField", "BooleanField", "CharField", "IntegerField", "SmallIntegerField"),
    "TextField",
}


def attach(parents: Sequence[Any], name: str, children: Iterable[Any]) -> None:
    """Give the parents their related rows, and these their parent, as `prefetch_related(name)` does, without a query."""
    if not parents:
        return
    field: Any = parents[0]._meta.get_field(name).field
    of_parent: dict[Any, list[Any]] = defaultdict(list)
    for child in children:
        of_parent[getattr(child, field.attname)].append(child)
    every = field.model._default_manager.all()
    for parent in parents:
        rows = of_parent[parent.pk]
        for child in rows:
            field.set_cached_value(child, parent)
        # The query set of the parent's own manager would make a query with its condition, which is not needed any more.
        related = type(every)(field.model, every.query)
        related._result_cache, related._prefetch_done = rows, True
        parent.__dict__.setdefault("_prefetched_objects_cache", {})[name] = related
