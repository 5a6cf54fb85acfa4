"""PostgreSQL for the simulation, and the environment that the settings read. Import this before Django."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import psycopg

from portal.local import embedded
from sim.clock import ENDPOINT, SCHEMA, connection_options

TEMPLATE = "sim_template"


def prepare_environment() -> None:
    """Set what the product's settings read. A PostgreSQL that another process has started is used again."""
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "sim.settings",
        "DEMO": "1",
        "DEBUG": "0",
        "LOG_LEVEL": "CRITICAL",  # failures here are deliberate
        "CELERY_BROKER_URL": "redis://127.0.0.1:1",  # replaced in sim/settings.py
        "CACHE_URL": "locmem://",
        # Fewer observations than in production, and a shorter base of the deadline, so that more worlds fit in a minute.
        "UPGRADE_POLL_SECONDS": "15",
        "DEPLOYMENTS_POLL_SECONDS": "8",
        "DEPLOYMENTS_STEADY_SECONDS": "60",
        "UPGRADE_DEADLINE_SECONDS": "480",
        "AWS_ENDPOINT_URL": ENDPOINT,
        "AWS_ACCESS_KEY_ID": "portal",
        "AWS_SECRET_ACCESS_KEY": "portal",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    if "SIM_DATABASE_URL" not in os.environ:
        directory = Path(tempfile.mkdtemp(prefix="portal-sim-"))
        directory.chmod(0o755)  # PostgreSQL runs as another user when the simulation runs as root
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        embedded.start_postgres(directory / "postgres")
        os.environ["SIM_DATABASE_URL"] = embedded.database_url(directory / "postgres")
        os.environ["SIM_CLOCKS"] = str(directory)
    # As a superuser, who may turn the clock. Row-level security does not apply; the worlds have one organization each.
    os.environ["DATABASE_URL"] = os.environ["DATABASE_OWNER_URL"] = os.environ["SIM_DATABASE_URL"]
    os.environ["SIM_CLOCK"] = str(clock_file(TEMPLATE))


def clock_file(database: str) -> Path:
    return Path(os.environ["SIM_CLOCKS"]) / f"{database}.clock"


def connect(database: str) -> "psycopg.Connection[Any]":
    """Return a connection that commits each statement."""
    url = os.environ["SIM_DATABASE_URL"].replace("/postgres?", f"/{database}?")
    return psycopg.connect(url, autocommit=True, options=connection_options(clock_file(database)))


def create_database(name: str, *, template: str = "template1") -> None:
    with connect("postgres") as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())


def has_database(name: str) -> bool:
    with connect("postgres") as connection:
        return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is not None


def create_clock(database: str) -> None:
    with connect(database) as connection:
        connection.execute(SCHEMA.encode())


def delete_rows(connection: "psycopg.Connection[Any]") -> None:
    """Delete the rows of earlier worlds, and number new ones from 1. Triggers are off, because some refuse to delete a row.

    `migrate` makes all tables in the first schema of the search path.
    """
    names = connection.execute(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'turned'::regnamespace"
        " AND relname NOT IN ('django_migrations', 'django_content_type', 'auth_permission', 'portal_user')"
        " ORDER BY relname"
    ).fetchall()
    deletes = [f'DELETE FROM "{name}"' for (name,) in names]
    statements = ["BEGIN", "SET LOCAL session_replication_role = replica", *deletes, "COMMIT"]
    connection.execute(
        "SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S' AND relname <> 'portal_user_id_seq'"
    )
    connection.execute(";".join(statements).encode())
