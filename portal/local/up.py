"""`make up`: the whole portal on this machine, in the foreground under one process manager.

PostgreSQL first (it must hold the tables before anything starts), then Redis, the local AWS, worker, scheduler and web
under honcho. Ctrl-C stops all of them. The data lives in DATA_DIR; `make reset` drops it.
"""

import contextlib
import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, NoReturn

from honcho.manager import Manager
from honcho.printer import Printer

from portal.local import embedded

ROOT = Path(__file__).resolve().parent.parent
SEED_COMMANDS = ("seed_organizations", "seed_upgrades", "seed_deployments")
PEOPLE = """\
    operator@acme.example        runs upgrades of Acme Robotics
    admin@acme.example           its admin              viewer@acme.example          may only look
    operator@globex.example      runs upgrades of Globex (another AWS account, by an assumed role)
    consultant@portal.example    operator of both       operator@initech.example     an organization not set up yet
    staff@portal.example         Django admin at /admin/
  All with the password portal-demo-1"""


def main() -> int:
    started_at = time.monotonic()
    port = int(os.environ.get("PORT", "8000"))
    aws_port = int(os.environ.get("AWS_PORT", str(port + 1)))
    data_dir = Path(os.environ.get("DATA_DIR", ROOT / ".data")).resolve()
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = hold(data_dir)
    for name, number in (("PORT", port), ("AWS_PORT", aws_port)):
        if not embedded.port_is_free(number):
            stop(
                f"Port {number} is taken by another program. Stop that, or choose another: {name}={number + 10} make up"
            )

    sockets = Path(tempfile.mkdtemp(prefix="portal-"))
    try:
        say("starting PostgreSQL")
        settings = environment(embedded.start_postgres(data_dir / "postgres"), sockets, port, aws_port)
        keep_for_manage(settings, data_dir)
        env = {**os.environ, **settings}
        for command in (("migrate", "--verbosity", "0"), *((seed,) for seed in SEED_COMMANDS)):
            say(f"manage.py {command[0]}")
            run_manage(env, *command)
        manager = processes(env, data_dir, sockets, port, aws_port)
        announcer = threading.Thread(target=announce, args=(port, aws_port, started_at), daemon=True)
        announcer.start()
        # A closed terminal must stop everything just as Ctrl-C does, though nobody reads the output any more.
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        manager.loop()
        return int(manager.returncode or 0)
    finally:
        shutil.rmtree(sockets, ignore_errors=True)
        lock.close()


def hold(data_dir: Path) -> IO[str]:
    """One `make up` at a time for a data folder; the lock goes with the process, however it ends."""
    lock = (data_dir / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stop(f"`make up` already runs on {data_dir}. Stop it with Ctrl-C there, or set DATA_DIR to another folder.")
    return lock


def environment(database_url: str, sockets: Path, port: int, aws_port: int) -> dict[str, str]:
    """What every process runs with. The local AWS is nothing but an endpoint and made-up credentials."""
    redis = sockets / "redis.sock"
    return {
        "DEMO": "1",
        "DATABASE_URL": database_url,
        "CELERY_BROKER_URL": f"redis+socket://{redis}?virtual_host=0",
        "CACHE_URL": f"unix://{redis}?db=1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{aws_port}",
        "AWS_ACCESS_KEY_ID": "portal",
        "AWS_SECRET_ACCESS_KEY": "portal",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        # The platforms' endpoints and the inbox of webhooks, both on the local AWS's port.
        "PROBE_NETWORKS": "127.0.0.1/32",
        "WEBHOOK_NETWORKS": "127.0.0.1/32",
        "ALLOWED_HOSTS": os.environ.get("ALLOWED_HOSTS", "127.0.0.1,localhost"),
        "PORTAL_URL": f"http://127.0.0.1:{port}",
        "PYTHONUNBUFFERED": "1",
        "PORT": str(port),
    }


def keep_for_manage(settings: dict[str, str], data_dir: Path) -> None:
    """Leave the settings in DATA_DIR/env, which `make manage` reads."""
    path = data_dir / "env"
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items()))


def processes(env: dict[str, str], data_dir: Path, sockets: Path, port: int, aws_port: int) -> Manager:
    python = sys.executable
    (data_dir / "redis").mkdir(exist_ok=True)
    speed = os.environ.get("SPEED", "1")
    commands = {
        "redis": " ".join(embedded.redis_command(data_dir / "redis", sockets / "redis.sock")),
        "aws": f"{python} -m portal.sandbox --port {aws_port} --data-dir {data_dir / 'aws'} --speed {speed} --demo",
        "worker": f"{python} -m celery --quiet -A portal worker --concurrency 2 --loglevel WARNING --without-mingle",
        "scheduler": f"{python} manage.py run_scheduler",
        "web": f"{python} -m gunicorn portal.wsgi --bind 127.0.0.1:{port} --workers 2 --threads 4 --log-level warning",
    }
    manager = Manager(Printer(Output()))
    for name, command in commands.items():
        manager.add_process(name, f"exec {command}", env=env, cwd=str(ROOT), quiet=False)
    return manager


class Output:
    """Standard output that shrugs when its reader has gone: the processes must be stopped in order all the same."""

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stdout.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stdout.flush()

    def isatty(self) -> bool:
        return sys.stdout.isatty()


def announce(port: int, aws_port: int, started_at: float) -> None:
    """Print the address and the demo people once the portal and its worker answer."""
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                if answer.status == 200:
                    break
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    seconds = time.monotonic() - started_at
    print(
        f"\n  The portal is up after {seconds:.0f} s: http://127.0.0.1:{port}\n\n  Sign in as\n{PEOPLE}\n\n"
        f"  The local AWS answers at http://127.0.0.1:{aws_port}. Ctrl-C stops everything; the data stays.\n",
        flush=True,
    )


def run_manage(env: dict[str, str], *arguments: str) -> None:
    ended = subprocess.run([sys.executable, "manage.py", *arguments], cwd=ROOT, env=env, check=False)  # noqa: S603
    if ended.returncode:
        stop(f"`manage.py {' '.join(arguments)}` failed; its message stands above. Nothing was started.")


def say(text: str) -> None:
    print(f"  {text} ...", flush=True)


def stop(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    raise SystemExit(main())
