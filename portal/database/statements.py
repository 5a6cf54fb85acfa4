"""Statements that are made into SQL once and run with other values each time.

Making SQL of a query set, or of an INSERT of a model with fifty fields, costs several times as much CPU as running it.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, Generic, TypeAlias, TypeVar

from django.db import connection
from django.db.models import NOT_PROVIDED, Expression, Field, Model, QuerySet, TextField
from django.db.models.expressions import DatabaseDefault
from django.db.models.query import get_related_populators
from django.db.models.sql import InsertQuery, UpdateQuery

Row = TypeVar("Row", bound=Model)
# Forms of INSERT kept in each process: a model, and the columns that are not the default.
INSERTS_KEPT = 50
# Forms of UPDATE kept in each process: the rows, and the columns that change.
UPDATES_KEPT = 200


class Given(Expression):
    """A placeholder for a value that each run of a statement gives. It also stands for a person in `visible_to`."""

    is_authenticated = True
    access = entered = None  # staff who entered an organization read its pages, not the API

    def __init__(self, name: str, output_field: Any = None) -> None:
        super().__init__(output_field=output_field or TextField())
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        return "%s", (self,)


class Statement:
    """A query set that was made into SQL once, to run with other values each time."""

    def __init__(self, rows: QuerySet[Any]) -> None:
        self.compiler = rows.query.get_compiler(connection=connection)
        self.sql, parameters = self.compiler.as_sql()
        self.parameters = tuple(parameters)

    def read(self, **given: Any) -> list[tuple[Any, ...]]:
        """Return the rows for these values of its placeholders. *Costs* one query."""
        with connection.cursor() as cursor:
            cursor.execute(self.sql, fill(self.parameters, given))
            return list(cursor.fetchall())


class ObjectMaker:
    """Makes an object of each row, with joined objects and annotations, as Django's ModelIterable does."""

    def __init__(self, compiler: Any) -> None:
        form: dict[str, Any] = compiler.klass_info
        columns = form["select_fields"]
        self.model, self.annotations = form["model"], compiler.annotation_col_map
        self.own = slice(columns[0], columns[-1] + 1)
        self.names = [column[0].target.attname for column in compiler.select[self.own]]
        # The stubs know the signature of a later Django.
        self.joined = get_related_populators(form, compiler.select, connection.alias)  # type: ignore[call-arg]

    def __call__(self, values: Sequence[Any]) -> Any:
        row = self.model.from_db(connection.alias, self.names, values[self.own])
        for each in self.joined:
            each.populate(values, row)
        for name, place in self.annotations.items():
            setattr(row, name, values[place])
        return row


class RowStatement(Statement, Generic[Row]):
    """A query set of one model's rows, with those that it joins (select_related), that was made into SQL once."""

    def __init__(self, rows: QuerySet[Row]) -> None:
        super().__init__(rows)
        self.make = ObjectMaker(self.compiler)
        self.model = self.make.model
        self.converters = self.compiler.get_converters([each[0] for each in self.compiler.select])

    def read_all(self, **given: Any) -> list[Row]:
        """Return the rows for these values. What the query set computes is an attribute. *Costs* one query."""
        return [self.make(values) for values in self.compiler.apply_converters(self.read(**given), self.converters)]

    def read_first(self, **given: Any) -> Row | None:
        """Return the first row for these values, None if there is none. *Costs* one query."""
        return next(iter(self.read_all(**given)), None)


class UpdateStatement:
    """An UPDATE that was made into SQL once. It is run as a part of another statement."""

    def __init__(self, rows: QuerySet[Any], fields: dict[str, Any]) -> None:
        self.model = rows.model
        query: Any = rows.query.chain(UpdateQuery)
        query.add_update_values(fields)
        self.sql, parameters = query.get_compiler(connection=connection).as_sql()
        self.parameters = tuple(parameters)

    def fill(self, **given: Any) -> tuple[str, list[Any]]:
        """Return the SQL and its parameters, for these values of its placeholders."""
        return self.sql, fill(self.parameters, given)


def update(rows: Callable[[], QuerySet[Any]], matched: dict[str, Any], fields: dict[str, Any], **given: Any) -> int:
    """Update these columns of the rows whose columns are as `matched`, and return how many there were. *Costs* one query.

    `rows`: a function that always returns the same query set. `given`: the values of placeholders in expressions.
    """
    expressions = {name: value for name, value in fields.items() if hasattr(value, "resolve_expression")}
    form = update_form(rows, tuple(matched), tuple((name, expressions.get(name)) for name in fields))
    plain = {name: value for name, value in fields.items() if name not in expressions}
    conditions = {f"where {name}": value for name, value in matched.items()}
    sql, parameters = form.fill(**prepare(form.model, plain), **conditions, **given)
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return int(cursor.rowcount)


@lru_cache(maxsize=UPDATES_KEPT)
def update_form(
    rows: Callable[[], QuerySet[Any]], matched: tuple[str, ...], fields: tuple[tuple[str, Expression | None], ...]
) -> UpdateStatement:
    found = rows()
    meta: Any = found.model._meta
    conditions = {name: Given(f"where {name}", meta.get_field(name)) for name in matched}
    values = {name: Given(name, meta.get_field(name)) if value is None else value for name, value in fields}
    return UpdateStatement(found.filter(**conditions), values)


def prepare(model: type[Model], values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of these fields as the database takes them."""
    fields: dict[str, Any] = {name: model._meta.get_field(name) for name in values}
    return {name: field.get_db_prep_save(values[name], connection) for name, field in fields.items()}


def fill(parameters: tuple[Any, ...], given: dict[str, Any]) -> list[Any]:
    return [given[each.name] if isinstance(each, Given) else each for each in parameters]


# --- INSERT -----------------------------------------------------------------------------------------------------------

Column: TypeAlias = "Field[Any, Any]"


def insert(objects: Sequence[Model]) -> None:
    """Insert new objects of one model and set their primary keys, like bulk_create. *Costs* one statement; none for none.

    Unlike bulk_create it does not read the other columns that the database writes: they are read when they are used.
    """
    if not objects:
        return
    pk = objects[0]._meta.pk
    sql, parameters = insert_sql(objects)
    with connection.cursor() as cursor:
        cursor.execute(f"{sql} RETURNING {connection.ops.quote_name(str(pk.column))}", parameters)
        for each, (value,) in zip(objects, cursor.fetchall(), strict=True):
            set_inserted(each, value)


def set_inserted(inserted: Model, pk: Any) -> None:
    """Note that the object is in the database, with this primary key. What the database computed is read when used."""
    inserted.pk = pk
    for field, _ in list_columns(type(inserted)):
        if hasattr(inserted.__dict__.get(field.attname), "resolve_expression"):
            del inserted.__dict__[field.attname]
    inserted._state.adding, inserted._state.db = False, connection.alias


def insert_sql(objects: Sequence[Model]) -> tuple[str, list[Any]]:
    """Return the statement of `insert` without its RETURNING, and its parameters."""
    model = type(objects[0])
    needed = {field for each in objects for field, constant in list_columns(model) if differs(each, field, constant)}
    head, cells = insert_form(model, tuple(field for field, _ in list_columns(model) if field in needed))
    rows: list[str] = []
    parameters: list[Any] = []
    for each in objects:
        texts = []
        for cell in cells:
            text, own = (cell, ()) if isinstance(cell, str) else value_sql(each, cell)
            texts.append(text)
            parameters += own
        rows.append(f"({', '.join(texts)})")
    return f"{head} VALUES {', '.join(rows)}", parameters


@cache
def list_columns(model: type[Model]) -> list[tuple[Column, Any]]:
    """Return the columns that an INSERT may name, each with its constant default, or NOT_PROVIDED if it has none."""
    fields = [field for field in model._meta.concrete_fields if not field.generated]
    return [(field, find_default(field)) for field in fields]


def find_default(field: Column) -> Any:
    """Return the value that each new object has if nothing else is given."""
    if field.db_default is not NOT_PROVIDED or (field.has_default() and callable(field.default)):
        return NOT_PROVIDED
    return None if field.primary_key else field.get_default()


def differs(each: Model, field: Column, constant: Any) -> bool:
    """Return whether the statement must give the object's value of this column."""
    value = getattr(each, field.attname)
    return not isinstance(value, DatabaseDefault) and (constant is NOT_PROVIDED or value != constant)


@lru_cache(maxsize=INSERTS_KEPT)
def insert_form(model: type[Model], given: tuple[Column, ...]) -> tuple[str, list["str | Column"]]:
    """Return the beginning of an INSERT, and for each column its SQL, or the field whose value an object gives."""
    columns, cells = [], []
    for field, constant in list_columns(model):
        if field not in given and (constant is NOT_PROVIDED or field.primary_key):
            continue
        columns.append(connection.ops.quote_name(str(field.column)))
        cells.append(field if field in given else constant_sql(field, constant))
    return f"INSERT INTO {connection.ops.quote_name(model._meta.db_table)} ({', '.join(columns)})", cells


def constant_sql(field: Column, constant: Any) -> "str | Column":
    """Return a constant as SQL; the field itself for one that needs a parameter."""
    if constant is None or isinstance(constant, bool | int):
        return "NULL" if constant is None else str(constant).upper()
    return "''" if constant == "" else field


def value_sql(each: Model, field: Column) -> tuple[str, Sequence[Any]]:
    """Return the object's value of a column as SQL, and its parameters."""
    value = getattr(each, field.attname)
    if hasattr(value, "resolve_expression"):
        query = InsertQuery(type(each))
        resolved = value.resolve_expression(query, allow_joins=False, for_save=True)
        sql, parameters = query.get_compiler(connection=connection).compile(resolved)
        return str(sql), parameters
    return "%s", (field.get_db_prep_save(value, connection),)
