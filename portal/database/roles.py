"""The roles of a site: the owner of the tables, for `migrate`; the application's, which owns nothing; and one that prunes.

roles.sql creates them. A site may also have a single role that owns the tables. Then the policies of row-level security
are forced, so that they hold for it too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings
from django.db import connection, transaction
from psycopg import sql

from portal.tenancy import all_organizations

ROLES_FILE = Path(__file__).with_name("roles.sql")
# How a connection is made, without the name of the database.
PLACE = ("USER", "PASSWORD", "HOST", "PORT")
# The rights of the application's role on the tables, where they are not all four.
RIGHTS = "SELECT, INSERT, UPDATE, DELETE"
RIGHTS_ON = {"portal_auditevent": "SELECT, INSERT", "portal_auditcheckpoint": "SELECT", "portal_auditchain": None}

# The role of `prune_audit`, if the site has it, and its rights. Rows are deleted by the function alone (migration 0019).
MAINTENANCE = "portal_maintenance"
MAINTENANCE_GRANTS = (
    "GRANT USAGE ON SCHEMA {schema} TO {role}",
    "GRANT SELECT ON portal_organization, portal_auditcheckpoint TO {role}",
    "GRANT SELECT, INSERT ON portal_auditevent TO {role}",
    "GRANT USAGE ON SEQUENCE portal_auditevent_id_seq TO {role}",
    "GRANT EXECUTE ON FUNCTION portal_audit_prune(text, bigint, text, bigint, text) TO {role}",
)

TENANT_TABLES = """
SELECT relname, relforcerowsecurity FROM pg_class
WHERE relkind = 'r' AND relrowsecurity AND relnamespace = current_schema()::regnamespace ORDER BY relname
"""


@contextmanager
def owner_connection() -> Iterator[str]:
    """Connect as the owner of the tables (DATABASE_OWNER_URL), in the context of all organizations.

    Yields the name of the application's role, which is DATABASE_URL's.

    Without row-level security applied to it, the owner needs no context; a single role does.
    """
    given = {name: connection.settings_dict[name] for name in PLACE}
    connection.close()
    connection.settings_dict.update({name: settings.DATABASE_OWNER[name] for name in PLACE})
    try:
        with all_organizations("migrations may change rows of every organization"):
            yield given["USER"]
    finally:
        connection.close()
        connection.settings_dict.update(given)


def runs_without_policies() -> bool:
    """Return whether a release without row-level security made the tables, so that it may still be running."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) > 0 FROM pg_class WHERE oid = to_regclass('portal_organization') AND NOT relrowsecurity"
        )
        return bool(cursor.fetchone()[0])


@transaction.atomic
def secure_tables(role: str, *, force: bool = True) -> None:
    """Grant the roles their rights, and force the policies where the application's is the owner itself. Call as the owner.

    Runs after each `migrate`, so that it also covers new tables and a role with a new name. Without `force` the policies do
    not hold for the owner yet: while the first release with them is rolled out, the one before knows no context.
    """
    is_owner = role == settings.DATABASE_OWNER["USER"]
    with connection.cursor() as cursor:
        cursor.execute(TENANT_TABLES)
        for table, is_forced in cursor.fetchall():
            if is_forced != is_owner and (force or is_forced):
                change = sql.SQL("FORCE" if is_owner else "NO FORCE")
                statement = sql.SQL("ALTER TABLE {} {} ROW LEVEL SECURITY")
                cursor.execute(statement.format(sql.Identifier(table), change))
        cursor.execute("SELECT current_schema(), EXISTS (SELECT FROM pg_roles WHERE rolname = %s)", [MAINTENANCE])
        name, has_maintenance = cursor.fetchone()
        schema = sql.Identifier(name)
        if not is_owner:
            for grant in grants(connection.introspection.table_names(cursor)):
                cursor.execute(grant.format(schema=schema, role=sql.Identifier(role)))
        for rights in MAINTENANCE_GRANTS if has_maintenance else ():
            cursor.execute(sql.SQL(rights).format(schema=schema, role=sql.Identifier(MAINTENANCE)))


def grants(tables: list[str]) -> Iterator[sql.SQL]:
    """Yield the grants on the tables of `{schema}` and their sequences, to `{role}`."""
    yield sql.SQL("GRANT USAGE ON SCHEMA {schema} TO {role}")
    for table in tables:
        rights = RIGHTS_ON.get(table, RIGHTS)
        if table in RIGHTS_ON:
            yield sql.SQL(f'REVOKE ALL ON {{schema}}."{table}" FROM {{role}}')
        if rights:
            yield sql.SQL(f'GRANT {rights} ON {{schema}}."{table}" TO {{role}}')
    yield sql.SQL("GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {role}")
