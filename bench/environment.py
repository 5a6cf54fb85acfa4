"""Sets up the bench's process: a folder of its own, the settings of a production site, Django. Import it first.

Nothing runs yet: bench/parts.py starts PostgreSQL, two Redis (cache and broker) and the local AWS in this folder. Settings
that the shell gives, such as WEB_THREADS, hold for the servers as well.
"""

import atexit
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import django

from portal.local import embedded

DIRECTORY = Path(tempfile.mkdtemp(prefix="portal-bench-"))
DIRECTORY.chmod(0o755)  # PostgreSQL runs as another user when the bench runs as root
atexit.register(shutil.rmtree, DIRECTORY, ignore_errors=True)
# So that a bench that is ended stops what it has started.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
CLUSTER, CACHE_SOCKET, BROKER_SOCKET = DIRECTORY / "postgres", DIRECTORY / "cache.sock", DIRECTORY / "broker.sock"
HOST = "portal.example"

# For a program with settings of its own.
INHERITED = dict(os.environ)
os.environ |= {
    "DJANGO_SETTINGS_MODULE": "bench.product_settings",
    "DEMO": "0",
    "DEBUG": "0",
    "SECRET_KEY": "the-bench-measures-with-this-key-and-protects-nothing-else-0123456789",
    "ALLOWED_HOSTS": HOST,
    "TRUSTED_PROXY_COUNT": "1",
    "DATABASE_URL": embedded.database_url(CLUSTER, role=embedded.APPLICATION),
    "DATABASE_OWNER_URL": embedded.database_url(CLUSTER, role=embedded.OWNER),
    "CACHE_URL": f"unix://{CACHE_SOCKET}?db=0",
    "CELERY_BROKER_URL": f"redis+socket://{BROKER_SOCKET}?virtual_host=0",
    "WEB_DRAIN_SECONDS": "0",
    "PROBE_NETWORKS": "127.0.0.1/32",
    "AWS_ACCESS_KEY_ID": "portal",
    "AWS_SECRET_ACCESS_KEY": "portal",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
django.setup()
