"""gunicorn's settings for `make up`: Ctrl-C stops the web within three seconds, whatever connections are open.

A browser opens connections in advance, and a client may send half a request. Each holds a thread that waits for data, and
a process does not end before its threads do: gunicorn would kill its workers after 30 seconds.
"""

import logging
import os
import sys
from importlib import import_module
from typing import Any

from django.conf import settings

workers = 2
threads = 4
preload_app = True  # one import for both workers
loglevel = "warning"
control_socket_disable = True  # it would be in the home folder, the same for two portals of one person
graceful_timeout = 6  # then the parent kills its workers


def when_ready(server: Any) -> None:
    """Import every page once, in the parent, before the workers are forked."""
    import_module(settings.ROOT_URLCONF)


def post_fork(server: Any, worker: Any) -> None:
    worker.cfg.set("graceful_timeout", 2)  # a worker looks once a second, so that it ends after 3 at most


def worker_exit(server: Any, worker: Any) -> None:
    """End now, with no regard to threads that still wait for data."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)
