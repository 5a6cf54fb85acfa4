"""A pytest plugin (pyproject.toml: addopts) that starts PostgreSQL and Redis before Django reads its settings.

The controller starts them once per run in its own directory. xdist's workers inherit the addresses.
"""

import atexit
import gc
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from portal.local import embedded

ROOT = Path(__file__).resolve().parent.parent
# A database with all migrations, of which each worker's own database is a copy (tests/conftest.py).
TEMPLATE_DATABASE = "portal_template"
MAINTENANCE = "portal_maintenance"
# A PostgreSQL cluster with the template, kept from run to run, because migrating takes longer than most test files.
KEPT_CLUSTERS = Path(sys.prefix) / "test-clusters"
CLUSTERS_KEPT = 8
SETTINGS = {
    "DEMO": "1",
    "DEBUG": "0",
    "LOG_LEVEL": "WARNING",
    # Copying the template takes seconds on a busy machine.
    "DATABASE_STATEMENT_SECONDS": "60",
    # A test is one transaction, and may wait for a process.
    "DATABASE_IDLE_SECONDS": "0",
    "CACHE_URL": "locmem://",
    "AWS_ACCESS_KEY_ID": "portal",
    "AWS_SECRET_ACCESS_KEY": "portal",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "PROBE_NETWORKS": "127.0.0.1/32",
    "WEBHOOK_NETWORKS": "127.0.0.1/32",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


def start_redis(directory: Path, socket_path: Path) -> subprocess.Popen[bytes]:
    directory.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(embedded.redis_command(directory, socket_path), stdout=subprocess.DEVNULL)


def stop_redis(redis: subprocess.Popen[bytes]) -> None:
    redis.kill()
    redis.wait()


def start_postgres(data_dir: Path) -> dict[str, str]:
    """Start PostgreSQL with the template database, and return the settings that name its roles and another database."""
    kept = KEPT_CLUSTERS / get_migrations_digest()
    if not kept.exists():
        make_cluster(data_dir)
        keep_cluster(data_dir, kept)
    else:
        copy_cluster(kept, data_dir)
    embedded.start_postgres(data_dir)
    return {
        "DATABASE_URL": embedded.database_url(data_dir, role=embedded.APPLICATION),
        "DATABASE_OWNER_URL": embedded.database_url(data_dir, role=embedded.OWNER),
    }


def get_migrations_digest() -> str:
    """Return a digest of what decides the template's tables: migrations, settings and the versions of packages."""
    digest = hashlib.sha256()
    names = ("*/migrations/*.py", "portal/database/*.*", "requirements*.txt", "portal/settings.py", "tests/embedded.py")
    for path in sorted(path for name in names for path in ROOT.glob(name)):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def make_cluster(data_dir: Path) -> None:
    """Create a cluster with the template, and leave it shut down. Each worker copies the template as the application."""
    process = embedded.start_postgres(data_dir)
    embedded.create_roles(data_dir)
    create = [str(embedded.binaries() / "psql"), "-qd", embedded.database_url(data_dir)]
    create += ["-c", f"CREATE DATABASE {TEMPLATE_DATABASE} OWNER {embedded.OWNER} IS_TEMPLATE true"]
    create += ["-c", f"ALTER ROLE {embedded.APPLICATION} CREATEDB"]
    # A test may become them with SET ROLE (acting_as). Until then it has none of their rights.
    create += ["-c", f"GRANT postgres, {MAINTENANCE} TO {embedded.APPLICATION} WITH INHERIT FALSE"]
    migrate = [sys.executable, "manage.py", "migrate", "--verbosity=0"]
    template = embedded.database_url(data_dir, role=embedded.OWNER).replace("/postgres?", f"/{TEMPLATE_DATABASE}?")
    settings = SETTINGS | {
        "DATABASE_URL": template.replace(embedded.OWNER, embedded.APPLICATION),
        "DATABASE_OWNER_URL": template,
        "CELERY_BROKER_URL": "redis://none",
    }
    subprocess.run(create, check=True)
    subprocess.run(migrate, check=True, cwd=ROOT, env=os.environ | settings)
    embedded.stop_postgres(process)


def keep_cluster(data_dir: Path, kept: Path) -> None:
    """Keep a copy for later runs, beside those of a few other branches. Another run may do the same at this moment."""
    KEPT_CLUSTERS.mkdir(exist_ok=True)
    for old in sorted(KEPT_CLUSTERS.iterdir(), key=lambda path: path.stat().st_mtime)[: -CLUSTERS_KEPT + 1]:
        shutil.rmtree(old, ignore_errors=True)
    copy = kept.with_name(f"{kept.name}.{os.getpid()}")
    copy_cluster(data_dir, copy)
    try:
        copy.rename(kept)
    except OSError:
        shutil.rmtree(copy)


def copy_cluster(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", source, target], check=True)  # keeps the owner, who is not root


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Stop the garbage collector until all is imported and collected (tests/conftest.py): what is made meanwhile stays."""
    gc.disable()


def start() -> None:
    directory = Path(tempfile.mkdtemp(prefix="portal-test-"))
    directory.chmod(0o755)  # PostgreSQL runs as another user when the tests run as root
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    redis_socket = directory / "redis.sock"
    redis = start_redis(directory / "redis", redis_socket)
    atexit.register(stop_redis, redis)
    os.environ |= SETTINGS | {
        "PORTAL_TEST_PARTS": str(directory),
        **start_postgres(directory / "postgres"),
        "CELERY_BROKER_URL": f"redis+socket://{redis_socket}?virtual_host=0",
    }


if "PORTAL_TEST_PARTS" not in os.environ:
    start()
