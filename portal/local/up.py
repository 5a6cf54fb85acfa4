"""Runs the whole portal on this machine in the foreground: `make up`.

PostgreSQL, Redis, the local AWS and the preparation of the database start together. Web, worker and scheduler start when
the database is prepared and the local AWS answers. Ctrl-C stops all of them. The data is in DATA_DIR. `make reset` deletes
it.
"""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from portal.local import embedded, leftovers
from portal.local.processes import EndedError, Processes, show

ROOT = Path(__file__).resolve().parent.parent.parent
LOG = "portal.log"
BACK_ENDS = ("aws", "redis", "postgres")
PEOPLE = """\
    operator@acme.example        runs upgrades of Acme Robotics
    admin@acme.example           its admin              viewer@acme.example          may only read
    operator@globex.example      runs upgrades of Globex (another AWS account, by an assumed role)
    consultant@portal.example    operator of both       operator@initech.example     an organization not set up yet
    staff@portal.example         Django admin at /admin/
  All with the password portal-demo-1"""
TO_TRY = """\
    1. Sign in as operator@acme.example. "Needs attention" says why the Triage agent failed: read its logs in one click.
    2. Let the next upgrade fail halfway, then upgrade all three to v9.9.1, and follow "Next step":
       make manage ARGS="sandbox fault add crash --service acme-prod-orchestrator-service"
       make manage ARGS="sandbox fault clear"
    3. As operator@globex.example upgrade the orchestrator. It is deployed blue/green and pauses until you decide."""


@dataclass(frozen=True)
class Options:
    """The options from the environment."""

    data_dir: Path
    port: int
    aws_port: int
    speed: float


class StoppedError(BaseException):
    """A signal requested a stop. Like KeyboardInterrupt, it is not an Exception, so that it is not caught on the way."""

    def __init__(self, number: int) -> None:
        self.number = number


def main() -> int:
    started_at = time.monotonic()
    options = read_options()
    stop_on_signals()
    try:
        with hold(options.data_dir):
            check_ports(options)
            with sockets_folder() as sockets:
                run(options, sockets, started_at)
    except StoppedError as stopped:
        return 128 + stopped.number
    except EndedError as ended:
        stop(f"{ended}, so everything was stopped. Read why in {get_log_path(ended.name, options.data_dir)}.")
    except embedded.PostgresError as error:
        stop(f"PostgreSQL could not be started: {error}")
    return 0


def read_options() -> Options:
    port = number_of_port("PORT", "8000")
    aws_port = number_of_port("AWS_PORT", str(port + 1))
    if port == aws_port:
        stop(f"PORT and AWS_PORT are both {port}: give two different ones.")
    given = os.environ.get("SPEED") or "1"
    try:
        speed = float(given)
    except ValueError:
        speed = 0
    if not 0 < speed < float("inf"):
        stop(f"SPEED must be a number above 0, such as SPEED=4; it is {given}.")
    return Options(Path(os.environ.get("DATA_DIR") or ROOT / ".data").resolve(), port, aws_port, speed)


def number_of_port(name: str, default: str) -> int:
    given = os.environ.get(name) or default
    if not (given.isascii() and given.isdigit() and 0 < int(given) < 65536):
        stop(f"{name} must be a number from 1 to 65535, such as {name}=8010; it is {given}.")
    return int(given)


def check_ports(options: Options) -> None:
    for name, number in (("PORT", options.port), ("AWS_PORT", options.aws_port)):
        reason = embedded.why_port_is_refused(number)
        if reason:
            other = number + 10 if 1024 <= number < 65000 else 8010
            stop(f"Port {number} {reason}. Choose another: {name}={other} make up")


@contextlib.contextmanager
def hold(data_dir: Path) -> Iterator[None]:
    """Create and lock the data folder, and stop what a killed `make up` left running on it."""
    example = "DATA_DIR=~/portal-data make up"
    with contextlib.ExitStack() as held:
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            if not (data_dir / "lock").exists() and any(data_dir.iterdir()):
                stop(f"{data_dir} holds other files. Choose a new folder: {example}")
            held.enter_context(leftovers.hold(data_dir))
        except leftovers.HeldError:
            stop(f"`make up` already runs on {data_dir}. Stop it with Ctrl-C there, or set DATA_DIR to another folder.")
        except OSError as error:
            stop(f"{data_dir} cannot be written ({error.strerror}). Choose a folder of your own: {example}")
        if leftovers.stop_all(data_dir):
            show("  stopped what a killed `make up` had left running")
        yield


@contextlib.contextmanager
def sockets_folder() -> Iterator[Path]:
    """Create a folder with a short name, because the path of a Unix socket is limited to about 100 characters."""
    sockets = Path(tempfile.mkdtemp(prefix="portal-"))
    try:
        yield sockets
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def run(options: Options, sockets: Path, started_at: float) -> None:
    """Start everything, announce when the portal answers, and watch it until it is stopped."""
    settings = environment(options, sockets)
    record = leftovers.Record(options.data_dir, sockets)
    processes = Processes({**os.environ, **settings}, ROOT, record, options.data_dir / LOG)
    try:
        start_back_ends(processes, options, sockets)
        write_manage_settings(settings, options.data_dir)
        while not embedded.is_ready(options.data_dir / "postgres"):
            processes.check()
            time.sleep(0.05)
        embedded.create_roles(sockets / "postgres")
        if processes.run("prepare_demo", [sys.executable, "manage.py", "prepare_demo"]):
            stop("The database could not be prepared. See the message above.")
        while not listens(options.aws_port):
            processes.check()
            time.sleep(0.05)
        start_portal(processes, options)
        watch(processes, options, started_at)
    finally:
        ignore_signals()
        processes.stop(*(each.name for each in processes.running if each.name not in BACK_ENDS))
        processes.stop()
        (options.data_dir / "env").unlink(missing_ok=True)
        record.remove()


def start_back_ends(processes: Processes, options: Options, sockets: Path) -> None:
    show("  starting PostgreSQL, Redis and the local AWS ...")
    data_dir, python = options.data_dir, sys.executable
    for name in ("redis", "aws"):
        (data_dir / name).mkdir(exist_ok=True)
    aws = [python, "-m", "portal.sandbox", "--port", str(options.aws_port), "--data-dir", str(data_dir / "aws")]
    # Its clock stays ours, whatever the speed: deployments move faster, so that times agree on every page.
    processes.start("aws", [*aws, "--speed", "1", "--pace", str(options.speed), "--demo", "--quiet"])
    processes.start("redis", embedded.redis_command(data_dir / "redis", sockets / "redis.sock"))
    embedded.prepare_postgres(data_dir / "postgres", sockets / "postgres")
    processes.start(
        "postgres",
        embedded.postgres_command(data_dir / "postgres", sockets / "postgres"),
        log=data_dir / "postgres.log",
        user=embedded.postgres_user(),
        stop_signal=signal.SIGINT,  # fast shutdown: it does not wait for clients
    )


def start_portal(processes: Processes, options: Options) -> None:
    show("  starting web, worker and scheduler ...")
    python = sys.executable
    web = [
        python,
        "-m",
        "gunicorn",
        "--config",
        "python:portal.local.gunicorn_conf",
        "--bind",
        f"127.0.0.1:{options.port}",
    ]
    processes.start("web", [*web, "portal.wsgi"])
    # Celery warns root about pickled messages, but the portal's messages are JSON.
    worker = [python, "-W", "ignore:You're running the worker with superuser privileges", "-m", "celery", "--quiet"]
    worker += ["-A", "portal", "worker", "--concurrency", "2", "--loglevel", "WARNING", "--without-mingle"]
    processes.start("worker", worker, is_supervised=True)
    processes.start("scheduler", [python, "manage.py", "run_scheduler"], is_supervised=True)


def environment(options: Options, sockets: Path) -> dict[str, str]:
    """Return the environment of every process. The local AWS needs only an endpoint and any credentials."""
    redis = sockets / "redis.sock"
    return {
        "DEMO": "1",
        "DEMO_EXPOSED": os.environ.get("DEMO_EXPOSED", "0"),
        "DATABASE_URL": embedded.database_url(sockets / "postgres", role=embedded.APPLICATION),
        "DATABASE_OWNER_URL": embedded.database_url(sockets / "postgres", role=embedded.OWNER),
        "CELERY_BROKER_URL": f"redis+socket://{redis}?virtual_host=0",
        "CACHE_URL": f"unix://{redis}?db=1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{options.aws_port}",
        "AWS_ACCESS_KEY_ID": "portal",
        "AWS_SECRET_ACCESS_KEY": "portal",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        # The platforms' endpoints and the inbox of webhooks, both on the local AWS's port.
        "PROBE_NETWORKS": "127.0.0.1/32",
        "WEBHOOK_NETWORKS": "127.0.0.1/32",
        "ALLOWED_HOSTS": os.environ.get("ALLOWED_HOSTS", "127.0.0.1,localhost"),
        "PORTAL_URL": f"http://127.0.0.1:{options.port}",
        "LOG_LEVEL": os.environ.get("LOG_LEVEL", "WARNING"),
        "PYTHONUNBUFFERED": "1",
        "PORT": str(options.port),
        leftovers.MARK: str(options.data_dir),
    }


def write_manage_settings(settings: dict[str, str], data_dir: Path) -> None:
    """Write the settings to DATA_DIR/env, which `make manage` reads while the portal runs."""
    path = data_dir / "env"
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items()))


def watch(processes: Processes, options: Options, started_at: float) -> None:
    """Print the address and the demo users once the portal answers. Return if the `make` that started this is killed.

    A worker or scheduler that ends is started again. *Raises* EndedError if another process ends.
    """
    parent = os.getppid()
    is_announced = False
    while "MAKELEVEL" not in os.environ or os.getppid() == parent:
        processes.check()
        if not is_announced and is_healthy(options.port):
            announce(options, time.monotonic() - started_at)
            processes.is_shown = is_announced = True
        time.sleep(0.2)


def is_healthy(port: int) -> bool:
    """Return whether the portal, its worker and the local AWS answer."""
    if not listens(port):
        return False
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def announce(options: Options, seconds: float) -> None:
    show(
        f"\n  The portal is up after {seconds:.0f} s: http://127.0.0.1:{options.port}\n\n  Sign in as\n{PEOPLE}\n\n"
        f"  Three things to try\n{TO_TRY}\n\n"
        f"  The local AWS answers at http://127.0.0.1:{options.aws_port}. Ctrl-C stops everything; the data stays.\n"
        f"  The log is {options.data_dir / LOG}; its warnings and errors follow here.\n"
    )


def stop_on_signals() -> None:
    """Stop everything on Ctrl-C, on SIGTERM, and when the terminal is closed, except under nohup."""

    def stop_now(number: int, _frame: FrameType | None) -> None:
        raise StoppedError(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop_now)


def ignore_signals() -> None:
    """Ignore signals while everything is being stopped, so that a second Ctrl-C does not interrupt it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    show("\n  stopping everything ...")


def get_log_path(name: str, data_dir: Path) -> Path:
    own = {"postgres": data_dir / "postgres.log", "redis": data_dir / "redis" / "redis.log"}
    return own.get(name, data_dir / LOG)


def stop(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    raise SystemExit(main())
