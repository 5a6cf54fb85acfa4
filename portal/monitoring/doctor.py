"""The checks of `manage.py doctor`: what must hold on a site and no test can know. Each says what to do.

A check takes a connection of the application's role, and yields a problem for each thing that does not hold.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from django.apps import apps
from django.db import connection

from portal.models import Organization

ROUNDS = 3


@dataclass(frozen=True)
class Problem:
    """What does not hold, and what to do about it: two sentences."""

    what: str
    advice: str


Raw = psycopg.Connection[Any]
Check = Callable[[Raw], Iterator[Problem]]

ROLES = "docs/deployment.md (Roles of the database) shows the statements."


def check_role(raw: Raw) -> Iterator[Problem]:
    """The application's role must be subject to row-level security."""
    role, is_superuser, bypasses = fetch(
        raw, "SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user"
    )
    if is_superuser:
        yield Problem(f"The role {role} is a superuser, so row-level security does not apply.", ROLES)
    elif bypasses:
        yield Problem(f"The role {role} has BYPASSRLS, so row-level security does not apply.", ROLES)


def check_owner(raw: Raw) -> Iterator[Problem]:
    """The application's role must not own the tables: an owner may switch row-level security off."""
    (owned,) = fetch(
        raw,
        "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
        " AND pg_has_role(current_user, relowner, 'USAGE')",
    )
    if owned:
        yield Problem(
            f"The role of DATABASE_URL owns {owned} tables, or belongs to the role that does.",
            f"Give DATABASE_OWNER_URL to `migrate`, and another role to DATABASE_URL. {ROLES}",
        )


def check_policies(raw: Raw) -> Iterator[Problem]:
    """Every tenant table must have its policy."""
    open_tables = [
        table
        for table in tenant_tables()
        if not fetch(raw, "SELECT relrowsecurity FROM pg_class WHERE oid = %s::regclass", table)[0]
    ]
    if open_tables:
        yield Problem(f"Without row-level security: {', '.join(open_tables)}.", "Run `manage.py migrate`.")


def check_pooler(raw: Raw) -> Iterator[Problem]:
    """A session's settings must stay with the connection. A pooler in transaction mode gives them to another one.

    Two connections take turns. While the second one is in a transaction, the first must still have its own server process
    and its own setting.
    """
    with connect() as other:
        for _ in range(ROUNDS):
            own, _ = fetch(raw, "SELECT pg_backend_pid(), set_config('portal.doctor', 'own', false)")
            with other.transaction():
                (others,) = fetch(other, "SELECT pg_backend_pid()")
                # A pool of one connection would let the next statement wait for the end of this transaction.
                is_shared = others == own or fetch(
                    raw, "SELECT pg_backend_pid(), current_setting('portal.doctor', true)"
                ) != (own, "own")
            if is_shared:
                yield Problem(
                    "Connections share server processes: a pooler in transaction mode is in between.",
                    "Set it to session mode (PgBouncer: pool_mode = session), or connect to PostgreSQL directly. "
                    "The context of row-level security and prepared statements belong to the session.",
                )
                return


CHECKS: list[Check] = [check_role, check_owner, check_policies, check_pooler]


def find_problems() -> Iterator[Problem]:
    """Yield what does not hold, check by check. Raises psycopg.OperationalError without a database."""
    with connect() as raw:
        for check in CHECKS:
            yield from check(raw)


def tenant_tables() -> list[str]:
    """Return the tables whose rows belong to an organization, and that of the organizations."""
    models = (model for model in apps.get_models() if model is Organization or is_tenants(model))
    return sorted(model._meta.db_table for model in models)


def is_tenants(model: Any) -> bool:
    return any(field.name == "organization" and field.related_model is Organization for field in model._meta.fields)


def connect() -> Raw:
    """Return a connection as the application makes it, without Django's wrapper."""
    return psycopg.connect(**{**connection.get_connection_params(), "autocommit": True})


def fetch(raw: Raw, statement: str, *values: Any) -> tuple[Any, ...]:
    """Return the only row of the statement."""
    row = raw.execute(statement, values or None).fetchone()
    assert row is not None  # noqa: S101
    return tuple(row)
