"""Starts what a site consists of, for the bench: PostgreSQL with the data set, Redis, local AWS, web servers."""

import atexit
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import psycopg
from django.core.management import call_command
from django.db import connection as django_connection

from bench import data
from bench.environment import CLUSTER, DIRECTORY
from portal.local import embedded
from portal.models import Organization, User
from portal.tenancy import all_organizations
from tests.local_aws import ROOT, LocalAws
from tests.processes import free_port, wait_for

# Durable, as on a site. Nothing of its own accord during a window: the tables are vacuumed when they are loaded.
POSTGRES_SETTINGS = (
    *("shared_buffers=1GB", "jit=off", "autovacuum=off", "max_wal_size=8GB", "checkpoint_timeout=1h"),
    *("max_connections=200", "log_line_prefix=@%p ", "maintenance_work_mem=256MB"),
)


class Postgres:
    """The database server, its log, and an administrator's connection, whose own CPU is never counted."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.admin: psycopg.Connection[Any]

    def start(self) -> None:
        embedded.prepare_postgres(CLUSTER, CLUSTER)
        command = embedded.postgres_command(CLUSTER, CLUSTER)
        command += [part for setting in POSTGRES_SETTINGS for part in ("-c", setting)]
        with (CLUSTER / "log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=embedded.postgres_user(),
                start_new_session=True,
            )
        atexit.register(self.stop)
        wait_for(lambda: embedded.is_ready(CLUSTER))
        self.connect()

    def connect(self) -> None:
        self.admin = psycopg.connect(embedded.database_url(CLUSTER), autocommit=True)

    def stop(self) -> None:
        if self.process is not None:
            django_connection.close()
            self.admin.close()
            embedded.stop_postgres(self.process)
            self.process = None

    @property
    def pid(self) -> int:
        assert self.process is not None  # noqa: S101
        return self.process.pid

    def cpu(self) -> float:
        """Return the CPU seconds of all processes of the server, without those of the administrator."""
        own = psutil.Process(self.admin.info.backend_pid).cpu_times()
        return tree_cpu(self.pid) - float(own.user + own.system)

    def log_statements(self, what: str) -> None:
        """Write statements to the log: `all` or `none`."""
        self.admin.execute(f"ALTER SYSTEM SET log_statement = '{what}'")
        self.admin.execute("SELECT pg_reload_conf()")
        time.sleep(0.3)

    def read_log(self, since: int) -> tuple[list[str], int]:
        """Return the statements that clients have sent since a position in the log, and the position now."""
        with (CLUSTER / "log").open("rb") as log:
            log.seek(since)
            text = log.read()
        own = f"@{self.admin.info.backend_pid} "
        lines = [line for line in text.decode(errors="replace").splitlines() if line.startswith("@")]
        sent = [line for line in lines if not line.startswith(own) and " LOG:  " in line]
        said = [line.partition(" LOG:  ")[2] for line in sent]
        texts = [line.partition(": ")[2].strip() for line in said if line.startswith(("statement: ", "execute "))]
        return texts, since + len(text)


def tree_cpu(pid: int) -> float:
    """Return the CPU seconds of a process and all below it, ended ones included."""
    root = psutil.Process(pid)
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def start_database(scale: int) -> Postgres:
    """Start PostgreSQL with the loaded data set: a copy of the kept cluster, or a new one that is then kept."""
    postgres = Postgres()
    kept = data.find_kept(scale)
    if kept is not None:
        data.copy_cluster(kept, CLUSTER)
        postgres.start()
        return postgres
    began = time.monotonic()
    postgres.start()
    embedded.create_roles(CLUSTER)
    call_command("migrate", verbosity=0)
    with all_organizations("the bench fills them"):
        person = data.make_people()
    data.load(postgres.admin, person, scale)
    postgres.stop()
    data.keep(CLUSTER, scale)
    print(f"Loaded the data set in {time.monotonic() - began:.0f} s.", file=sys.stderr)
    postgres.start()
    return postgres


def start_redis(socket_path: Path) -> None:
    directory = DIRECTORY / socket_path.stem
    directory.mkdir()
    command = [*embedded.redis_command(directory, socket_path), "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
    atexit.register(process.wait)
    atexit.register(process.kill)
    wait_for(socket_path.exists)


def start_aws(*slugs: str) -> LocalAws:
    """Start the local AWS without its limits, with the platforms of these organizations, by default that of `big`."""
    local_aws = LocalAws.start()
    atexit.register(local_aws.stop)
    local_aws.throttling(enabled=False)
    with all_organizations("the bench points each to its own platform"):
        for organization in Organization.objects.filter(slug__in=slugs or ["big"]):
            seed_platform(local_aws, organization)
    os.environ["AWS_ENDPOINT_URL"] = local_aws.url
    return local_aws


def seed_platform(local_aws: LocalAws, organization: Organization) -> None:
    """Create the organization's three services and their images in the local AWS, and enter the platform's addresses."""
    slug, names = organization.slug, ("agent", "orchestrator", "customer-portal")
    image = f"111111111111.dkr.ecr.eu-central-1.amazonaws.com/{slug}-{{}}:v9.1"
    local_aws.seed(
        cluster=organization.cluster,
        images=[{"repository": f"{slug}-{name}", "tags": ["v9.1", "latest"]} for name in names],
        services=[
            {"name": f"{slug}-{name}-service", "desired_count": 2, "image": image.format(name)} for name in names
        ],
    )
    addresses = {
        f"platform_{field}_url": local_aws.platform_url(slug, name)
        for field, name in zip(("agent", "orchestrator", "portal"), names, strict=True)
    }
    Organization.objects.filter(pk=organization.pk).update(**addresses)


class Server:
    """A web server under the product's configuration of gunicorn: the command of docs/deployment.md."""

    def __init__(self, name: str, application: str, settings_module: str, **environment: str) -> None:
        self.name, self.port = name, free_port()
        command = ["gunicorn", "-c", "python:portal.gunicorn_conf", application, "--bind", f"127.0.0.1:{self.port}"]
        given = {**os.environ, "DJANGO_SETTINGS_MODULE": settings_module, **environment}
        with (DIRECTORY / f"{name}.log").open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 - the command of the docs
                [sys.executable, "-m", *command], cwd=ROOT, env=given, stdout=log, stderr=log
            )
        atexit.register(self.stop)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)

    def cpu(self) -> float:
        return tree_cpu(self.process.pid)

    def read_log(self) -> str:
        return (DIRECTORY / f"{self.name}.log").read_text()[-3000:]

    def memory(self) -> dict[str, float]:
        """Return the proportional set size of the workers and of the process that started them, in MB."""
        parent = psutil.Process(self.process.pid)
        pss = [process.memory_full_info().pss / 1e6 for process in (parent, *parent.children())]
        return {"workers": sum(pss[1:]), "parent": pss[0]}


def find_person() -> User:
    return User.objects.get(email=data.PERSON[0])
