"""Settings of gunicorn for `make up`: Ctrl-C stops the web server within three seconds, even with open connections.

A browser opens connections in advance, and a client may send half a request. Each of these keeps a thread waiting for
data, and a process does not end before its threads. Without these settings, gunicorn kills its workers after 30 seconds.
"""

import logging
import os
import sys
from importlib import import_module
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

from django.conf import settings

from portal.local.exposure import on_starting as on_starting

workers = settings.WEB_PROCESSES
threads = settings.WEB_THREADS
preload_app = True  # one import for both workers
loglevel = "warning"
control_socket_disable = True  # its file in the home folder would be shared by all portals of one user
graceful_timeout = 6  # then the parent kills its workers


def when_ready(server: Any) -> None:
    """Import every page once, in the parent, before the workers are forked."""
    import_module(settings.ROOT_URLCONF)


def post_fork(server: Any, worker: Any) -> None:
    worker.cfg.set("graceful_timeout", 2)  # a worker checks once a second, so it ends after at most 3


def worker_exit(server: Any, worker: Any) -> None:
    """End immediately, without waiting for threads that still wait for data."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)
