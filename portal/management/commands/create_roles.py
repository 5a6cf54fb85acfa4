"""`manage.py create_roles`: create the roles of the database and set their passwords, as a role that may do so."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction
from psycopg import sql

from portal.database.roles import ROLES_FILE

PASSWORDS = {"portal_owner": "OWNER_PASSWORD", "portal_app": "APP_PASSWORD"}


class Command(BaseCommand):
    help = (
        "Create the roles portal_owner, portal_app and portal_maintenance, and set the passwords of the first two to "
        "OWNER_PASSWORD and APP_PASSWORD. Run it with the DATABASE_URL of a role that may create roles. Running it again "
        "does no harm."
    )
    # Nothing else works before it has run.
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        missing = [name for name in PASSWORDS.values() if not getattr(settings, name)]
        if missing:
            raise CommandError(f"Set {' and '.join(missing)}: the passwords that the roles get.")
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(ROLES_FILE.read_text())
            for role, name in PASSWORDS.items():
                statement = sql.SQL("ALTER ROLE {} PASSWORD {}")
                cursor.execute(statement.format(sql.Identifier(role), sql.Literal(hash_password(role, name))))
        self.stdout.write(f"The roles exist, and {' and '.join(PASSWORDS)} have their passwords.")


def hash_password(role: str, name: str) -> str:
    """Return the password of this setting as PostgreSQL stores it, so that its log never has the password itself."""
    connection.ensure_connection()
    password: bytes = getattr(settings, name).encode()
    hashed: bytes = connection.connection.pgconn.encrypt_password(password, role.encode(), b"scram-sha-256")
    return hashed.decode()
