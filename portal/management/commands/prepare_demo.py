"""What `make up` does to the database, in one process: wait for it, migrate it where that is due, seed the demo."""

import time
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import OperationalError, ProgrammingError, connection
from django.db.migrations.executor import MigrationExecutor

SEEDS = ("seed_organizations", "seed_upgrades", "seed_deployments")
WAIT_SECONDS = 60


class Command(BaseCommand):
    help = "Bring the demo's database up to date: migrations that are due, and the demo's data. Needs DEMO=1."
    # The checks import every page and every form, which takes longer than the rest; `make check` runs them.
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        wait_for_database()
        if migrations_are_due():
            self.stdout.write("  preparing the database ...")
            self.stdout.flush()
            call_command("migrate", verbosity=0)
        for seed in SEEDS:
            call_command(seed)


def wait_for_database() -> None:
    """Wait for PostgreSQL, which starts at the same time as this process."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            connection.ensure_connection()
        except OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def migrations_are_due() -> bool:
    try:
        executor = MigrationExecutor(connection)
    except ProgrammingError:
        return True  # in a data folder of an earlier release, which has granted the application's role nothing
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))
