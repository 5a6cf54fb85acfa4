"""JSON that PostgreSQL makes: a query set and its fields become one statement, and the response passes its text on.

Lists and records are read this way, because making objects of the rows and text of the objects costs ten times the read.
Making SQL of a query set costs more than running it, so a statement is made once for each shape of request and kept.
Its values are placeholders (`Given`), which the same query-set methods take that a page calls with values.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db.models import (
    BooleanField,
    Case,
    F,
    Func,
    JSONField,
    QuerySet,
    Subquery,
    TextField,
    UUIDField,
    Value,
    When,
)
from django.db.models.expressions import Combinable
from django.db.models.functions import MD5, Cast
from django.http import HttpResponse
from rest_framework.request import Request

from portal.access import get_api_organization, require_second_factor
from portal.api.links import link_pages
from portal.database.statements import Given, Statement
from portal.errors import found_or_404
from portal.models import Organization

# The members of a JSON object: each name, and its column or expression.
Fields = Mapping[str, str | Combinable]
# Statements kept in each process, by shape. A page far down a list is a shape of its own.
KEPT = 200


# Returns a page's items and the list's total, of an organization that is a placeholder.
BuildList = Callable[..., tuple[Any, Any]]
# Returns the query set of one row that the person may see, and the values to read of it.
BuildRecord = Callable[..., tuple[QuerySet[Any], Sequence[Any]]]


class JsonObjects(Subquery):
    """The rows of a query set as a JSON array of objects, in their order; `[]` without rows."""

    template = "(SELECT COALESCE(json_agg(rows), '[]') FROM (%(subquery)s) AS rows (%(columns)s))"
    output_field = JSONField()

    def __init__(self, rows: QuerySet[Any], fields: Fields) -> None:
        super().__init__(rows.values_list(*fields.values()), columns=quote(fields))


class JsonObject(Func):
    """The fields of a row as a JSON object."""

    template = "(SELECT row_to_json(fields) FROM (SELECT %(expressions)s) AS fields (%(columns)s))"
    output_field = JSONField()

    def __init__(self, fields: Fields) -> None:
        super().__init__(*fields.values(), columns=quote(fields))


class TextArray(Func):
    """Several texts of a row as one value."""

    template = "ARRAY[%(expressions)s]"
    output_field = ArrayField(TextField())


class IsAmong(Func):
    """Whether a value is one of those in an array."""

    template, arg_joiner = "(%(expressions)s))", " = ANY("
    output_field = BooleanField()


class ChoiceLabel(Func):
    """The label of a choice: the code's own text, for a column that holds its value."""

    output_field = TextField()

    def __init__(self, column: str, choices: Iterable[tuple[str, str]]) -> None:
        cases = " ".join(f"WHEN {literal(value)} THEN {literal(label)}" for value, label in choices)
        super().__init__(F(column), template=f"CASE %(expressions)s {cases} END")


class UtcTime(Func):
    """A time as `portal.times.utc` writes it: ISO 8601, UTC, `Z`, and microseconds unless they are 0."""

    template = (
        "REPLACE(TO_CHAR(%(expressions)s AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), '.000000Z', 'Z')"
    )
    output_field = TextField()


class UtcMicroseconds(Func):
    """A time in ISO 8601, UTC, `Z`, always with microseconds."""

    template = "TO_CHAR(%(expressions)s AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    output_field = TextField()


def as_text(value: JsonObject | JsonObjects) -> Cast:
    """Return the JSON as text, which psycopg does not parse."""
    return Cast(value, TextField())


def revisions_of(shown: Fields) -> MD5:
    """Return what stands for a record in its ETag: a hash of its rows' revisions, and of what else decides it."""
    return MD5(as_text(JsonObject(shown)))


def unless_known(revisions: MD5, *texts: Combinable) -> Case:
    """Return the texts as an array; null if the placeholder `known`, an array of text, has these revisions."""
    known = Given("known", ArrayField(TextField()))
    return Case(When(IsAmong(revisions, known), then=Value(None)), default=TextArray(*texts))


def quote(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def literal(text: str) -> str:
    """Return a text of the code as an SQL literal, inside of a template and of a statement with parameters."""
    return "'" + str(text).replace("'", "''").replace("%", "%%%%") + "'"


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


# --- reads of a request -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JsonPage:
    """One page of a list. To respond, its items must be the text of a JSON array."""

    items: Any
    total: int
    skip: int
    limit: int

    def respond(self, request: Request, heading: Mapping[str, Any] | None = None, **filters: Any) -> HttpResponse:
        """Return the response: the members of `heading`, the envelope, each filter's value or null; and its links."""
        has_more = self.skip + self.limit < self.total
        envelope = {"total": self.total, "skip": self.skip, "limit": self.limit, "has_more": has_more}
        before = f"{dumps(heading)[:-1]}," if heading else "{"
        links = link_pages(request, skip=self.skip, limit=self.limit, has_more=has_more, total=self.total)
        return respond_json(f'{before}"items":{self.items},{dumps(envelope | filters)[1:]}', headers=links)


def respond_json(text: str, **options: Any) -> HttpResponse:
    """Return the response with this body, which is JSON already."""
    return HttpResponse(text, content_type="application/json", **options)


def read_list(
    request: Request, build: BuildList, *, skip: int, limit: int, given: Mapping[str, Any] | None = None, **shape: Any
) -> tuple[Organization, JsonPage]:
    """Return the organization that the request acts on, and a page of its list.

    `given`: values of placeholders. `shape`: what else the statement depends on.

    *Raises* PortalError as get_api_organization does, and 404 if the total is null: what a filter names does not exist.
    *Costs* one query.
    """
    organization = get_api_organization(request)
    statement = make_list(build, skip, limit, tuple(sorted(shape.items())))
    ((items, total),) = statement.read(organization=organization.pk, **(given or {}))
    return organization, JsonPage(items, found_or_404(total), skip, limit)


@lru_cache(maxsize=KEPT)
def make_list(build: BuildList, skip: int, limit: int, shape: tuple[Any, ...]) -> Statement:
    """Return the statement of a list, which is a query of one organization.

    Each part has the organization as a value. PostgreSQL expects few rows of one that it only reads from a row, and would
    sort them all, instead of following the index of a large one.
    """
    organization = Given("organization", UUIDField())
    items, total = build(organization, skip=skip, limit=limit, **dict(shape))
    rows = Organization.objects.filter(pk=organization).order_by()
    return Statement(rows.values_list(items, total))


def read_record(request: Request, build: BuildRecord, given: Mapping[str, Any], **shape: Any) -> tuple[Any, ...]:
    """Return the values of the one row that `build` finds among what the person may see.

    *Raises* PortalError 404 if it does not exist or belongs to another organization, 403 `mfa_required_by_organization`.
    *Costs* one query.
    """
    statement = make_record(build, tuple(sorted(shape.items())))
    name, requires_mfa, *values = found_or_404(next(iter(statement.read(user=request.user.pk, **given)), None))
    require_second_factor(request.user, Organization(name=name, requires_mfa=requires_mfa))
    return tuple(values)


@lru_cache(maxsize=KEPT)
def make_record(build: BuildRecord, shape: tuple[Any, ...]) -> Statement:
    rows, values = build(Given("user"), **dict(shape))
    return Statement(rows.order_by().values_list("organization__name", "organization__requires_mfa", *values))
