"""Django's `migrate`, as the owner of the tables. Afterwards the application's role has its rights on them."""

from typing import Any

from django.core.management.commands import migrate

from portal.database.roles import owner_connection, runs_without_policies, secure_tables


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        with owner_connection() as role:
            is_first = runs_without_policies()
            super().handle(*args, **options)
            if not (options["plan"] or options["check_unapplied"]):
                secure_tables(role, force=not is_first)
