"""Checks of PostgreSQL: its version, the application's role and its rights, a pooler in between, time-outs, migrations.

Each makes a connection of its own as the application does, without Django's wrapper.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
from django.apps import apps
from django.conf import settings
from django.db import connection
from django.db.migrations.loader import MigrationLoader

from portal.database.roles import RIGHTS, RIGHTS_ON
from portal.doctor.findings import Finding, problem, warning
from portal.models import Organization

Raw = psycopg.Connection[Any]

ROUNDS = 3
MIGRATE = "Run `manage.py migrate` with DATABASE_OWNER_URL and DATABASE_URL as the processes have it."
ROLES = "docs/deployment.md (Roles of the database) shows the statements."
# The first minor versions without CVE-2025-8713, by major version. Earlier ones leak statistics past the policies.
SAFE_VERSIONS = {15: 150014, 16: 160010, 17: 170006}
# The settings of a session, and what each of them ends.
LIMITS = {
    "statement_timeout": ("DATABASE_STATEMENT_SECONDS", "a statement that hangs"),
    "lock_timeout": ("DATABASE_LOCK_SECONDS", "the wait for a locked row"),
    "idle_in_transaction_session_timeout": ("DATABASE_IDLE_SECONDS", "a transaction that does nothing"),
}
# Functions with the owner's rights are for the application, but for this one.
NOT_CALLED = {"portal_audit_prune"}

TABLE_RIGHTS = """
SELECT relname, array(
    SELECT held FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS held
    WHERE has_table_privilege(current_user, pg_class.oid, held)
)
FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace ORDER BY relname
"""
FUNCTIONS = """
SELECT proname, has_function_privilege(current_user, oid, 'EXECUTE') FROM pg_proc
WHERE pronamespace = current_schema()::regnamespace AND (prosecdef OR proname = ANY (%s)) ORDER BY proname
"""


def check_version() -> Iterator[Finding]:
    """PostgreSQL must answer, in a version whose policies keep."""
    with connect() as raw:
        (version,) = fetch(raw, "SELECT current_setting('server_version_num')::int")
    major = version // 10000
    if major <= max(SAFE_VERSIONS) and version < SAFE_VERSIONS.get(major, math.inf):
        yield warning(
            f"PostgreSQL {major}.{version % 10000} leaks statistics past row-level security (CVE-2025-8713).",
            "Update it to 15.14, 16.10, 17.6 or newer.",
        )


def check_role() -> Iterator[Finding]:
    """The application's role must be subject to row-level security."""
    with connect() as raw:
        role, is_superuser, bypasses = fetch(
            raw, "SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user"
        )
    if is_superuser:
        yield problem(f"The role {role} is a superuser, so row-level security does not apply.", ROLES)
    elif bypasses:
        yield problem(f"The role {role} has BYPASSRLS, so row-level security does not apply.", ROLES)


def check_owner() -> Iterator[Finding]:
    """The application's role must not own the tables: an owner may switch row-level security off."""
    with connect() as raw:
        (owned,) = fetch(
            raw,
            "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
            " AND pg_has_role(current_user, relowner, 'USAGE')",
        )
    if owned:
        yield problem(
            f"The role of DATABASE_URL owns {owned} tables, or belongs to the role that does.",
            f"Give DATABASE_OWNER_URL to `migrate`, and another role to DATABASE_URL. {ROLES}",
        )


def check_policies() -> Iterator[Finding]:
    """Every tenant table must have its policy."""
    with connect() as raw:
        open_tables = [
            table
            for table in tenant_tables()
            if not fetch(raw, "SELECT relrowsecurity FROM pg_class WHERE oid = %s::regclass", table)[0]
        ]
    if open_tables:
        yield problem(f"Without row-level security: {', '.join(open_tables)}.", MIGRATE)


def check_permissions() -> Iterator[Finding]:
    """The application's role must have the rights that `migrate` grants, and no others."""
    with connect() as raw:
        tables = {table: set(held) for table, held in raw.execute(TABLE_RIGHTS).fetchall()}
        functions = raw.execute(FUNCTIONS, [list(NOT_CALLED)]).fetchall()
    missing, excess = compare_rights(tables)
    missing += [f"call {name}" for name, may_call in functions if not may_call and name not in NOT_CALLED]
    excess += [f"call {name}" for name, may_call in functions if may_call and name in NOT_CALLED]
    if missing:
        yield problem(f"The application's role may not {shorten(missing)}.", MIGRATE)
    if excess:
        yield problem(f"The application's role may {shorten(excess)}.", f"Revoke these rights. {MIGRATE}")


def compare_rights(tables: dict[str, set[str]]) -> tuple[list[str], list[str]]:
    """Return the missing rights, and the ones that no row's policy or trigger limits.

    >>> compare_rights({"portal_user": {"SELECT", "INSERT", "UPDATE"}, "portal_auditevent": {"SELECT", "INSERT", "DELETE"}})
    (['DELETE in portal_user'], ['DELETE in portal_auditevent'])
    """
    missing, excess = [], []
    for table, held in tables.items():
        wanted = set((RIGHTS_ON.get(table, RIGHTS) or "").split(", ")) - {""}
        missing += [f"{right} in {table}" for right in sorted(wanted - held)]
        excess += [f"{right} in {table}" for right in sorted(held - wanted)]
    return missing, excess


def shorten(names: list[str], most: int = 5) -> str:
    """Return the names as a list with at most `most` of them.

    >>> shorten(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def check_pooler() -> Iterator[Finding]:
    """A session's settings must stay with the connection. A pooler in transaction mode gives them to another one.

    Two connections take turns. While the second one is in a transaction, the first must still have its own server process
    and its own setting.
    """
    with connect() as raw, connect() as other:
        for _ in range(ROUNDS):
            own, _ = fetch(raw, "SELECT pg_backend_pid(), set_config('portal.doctor', 'own', false)")
            with other.transaction():
                (others,) = fetch(other, "SELECT pg_backend_pid()")
                # A pool of one connection would let the next statement wait for the end of this transaction.
                is_shared = others == own or fetch(
                    raw, "SELECT pg_backend_pid(), current_setting('portal.doctor', true)"
                ) != (own, "own")
            if is_shared:
                yield problem(
                    "Connections share server processes: a pooler in transaction mode is in between.",
                    "Set it to session mode (PgBouncer: pool_mode = session), or connect to PostgreSQL directly: the "
                    "context of row-level security and prepared statements belong to the session.",
                )
                return


def check_time_outs() -> Iterator[Finding]:
    """PostgreSQL must end what hangs. `doctor` has the limits of the web process (settings.find_process)."""
    with connect() as raw:
        has = {
            name: fetch(raw, "SELECT setting::float / 1000 FROM pg_settings WHERE name = %s", name) for name in LIMITS
        }
    for name, (setting, what) in LIMITS.items():
        (seconds,), wanted = has[name], getattr(settings, setting)
        if not wanted:
            yield problem(f"{setting} is 0, so PostgreSQL never ends {what}.", f"Remove {setting} or set it.")
        elif seconds != wanted:
            yield problem(
                f"PostgreSQL's {name} is {seconds:g} s, and {setting} is {wanted:g} s.",
                "Let the pooler pass the start-up option `options` on (PgBouncer: not in ignore_startup_parameters).",
            )


def check_migrations() -> Iterator[Finding]:
    """The tables must be those of this release."""
    with connect() as raw:
        applied = {(app, name) for app, name in raw.execute("SELECT app, name FROM django_migrations").fetchall()}
    nodes = MigrationLoader(None).graph.nodes
    missing = [
        f"{app}.{name}"
        for (app, name), migration in sorted(nodes.items())
        if (app, name) not in applied and not (migration.replaces and applied.issuperset(migration.replaces))
    ]
    unknown = [f"{app}.{name}" for app, name in sorted(applied - nodes.keys()) if app in own_apps()]
    if missing:
        yield problem(f"Not applied: {shorten(missing)}.", MIGRATE)
    if unknown:
        yield warning(
            f"The tables are newer than this release: {shorten(unknown)}.",
            "Finish the release of the newer code; this code works until then.",
        )


def own_apps() -> Iterable[str]:
    """Return the labels of the portal's own apps."""
    return {model._meta.app_label for model in apps.get_models() if is_tenants(model)}


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
    if row is None:
        raise LookupError(f"No row: {statement}")
    return tuple(row)
