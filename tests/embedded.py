"""A pytest plugin (pyproject.toml: addopts) that starts PostgreSQL and Redis before Django reads its settings.

The controller starts them once per run in its own directory. xdist's workers inherit the addresses.
"""

import atexit
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from portal.local import embedded


def start_redis(directory: Path, socket_path: Path) -> subprocess.Popen[bytes]:
    directory.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(embedded.redis_command(directory, socket_path), stdout=subprocess.DEVNULL)


def stop_redis(redis: subprocess.Popen[bytes]) -> None:
    redis.kill()
    redis.wait()


def start() -> None:
    directory = Path(tempfile.mkdtemp(prefix="portal-test-"))
    directory.chmod(0o755)  # PostgreSQL runs as another user when the tests run as root
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    redis_socket = directory / "redis.sock"
    redis = start_redis(directory / "redis", redis_socket)
    atexit.register(stop_redis, redis)
    os.environ |= {
        "PORTAL_TEST_PARTS": str(directory),
        "DEMO": "1",
        "DEBUG": "0",
        "LOG_LEVEL": "WARNING",
        "DATABASE_URL": embedded.start_postgres(directory / "postgres"),
        "CELERY_BROKER_URL": f"redis+socket://{redis_socket}?virtual_host=0",
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


if "PORTAL_TEST_PARTS" not in os.environ:
    start()
