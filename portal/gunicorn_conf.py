"""Settings of gunicorn in production: `gunicorn -c python:portal.gunicorn_conf portal.wsgi`.

gunicorn closes its socket immediately on SIGTERM, while a load balancer still sends requests. Here the parent first lets
/readyz answer 503 for WEB_DRAIN_SECONDS, and serves requests meanwhile. A second SIGTERM stops it without waiting.
"""

import gc
import os
import select
import signal
import socket
import sys
from importlib import import_module
from types import FrameType
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

from django.conf import settings
from django.template.loader import get_template
from gunicorn.workers.gthread import ThreadWorker

# Imported before the workers are forked, so that they share its memory.
from portal import draining
from portal.aws.credentials import load_models
from portal.local.exposure import on_starting as on_starting

workers = settings.WEB_PROCESSES
threads = settings.WEB_THREADS
# Longer than a load balancer keeps a connection that is idle: nginx and AWS's keep it for 60 seconds. If the web server
# closed it first, a form sent at that moment would be answered with 502. An idle connection occupies no thread.
keepalive = 75
# For requests that run when draining ends. Both together are less than the 30 seconds in which ECS kills a task.
graceful_timeout = 15
control_socket_disable = True  # nothing uses it, and its folder may not be writable
# A connection without a request occupies no thread: the kernel keeps it until data arrives.
# https://man7.org/linux/man-pages/man7/tcp.7.html
SILENT_CONNECTION_SECONDS = 60
# After so long, a thread that renders a page lets another one run. With Python's 5 ms, /livez waited several times for each
# of them (docs/reliability.md). Pages cost no more CPU for it.
SWITCH_SECONDS = 0.0005


# One import for all workers, which share its memory. So a reload by SIGHUP keeps the code: stop and start instead.
preload_app = True


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's worker with threads, which stops listening as soon as it stops.

    gunicorn's own closes its sockets only after its last connection, up to two seconds later. Meanwhile the kernel accepts
    connections that nobody serves, and a load balancer does not send a form again that has once been sent.
    """

    def set_accept_enabled(self, enabled: bool) -> None:
        super().set_accept_enabled(enabled)
        if self.alive:
            return
        for listener in self.sockets:
            while select.select([listener], [], [], 0)[0]:
                self.accept(listener)
            listener.close()


worker_class = Worker


def when_ready(server: Any) -> None:
    """Run in the parent when it listens, before it starts its workers."""
    import_module(settings.ROOT_URLCONF)  # every page, before a worker accepts its first request
    load_templates()
    load_models()
    gc.collect()
    gc.freeze()  # the collector of a worker would write to every object, and so copy the shared memory
    if hasattr(socket, "TCP_DEFER_ACCEPT"):
        for listener in server.LISTENERS:
            if listener.sock.family in (socket.AF_INET, socket.AF_INET6):
                listener.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, SILENT_CONNECTION_SECONDS)
    if settings.WEB_DRAIN_SECONDS:
        signal.signal(signal.SIGTERM, drain)
        signal.signal(signal.SIGALRM, lambda _number, frame: server.signal(signal.SIGTERM, frame))


def load_templates() -> None:
    """Compile all templates of the portal, which Django keeps, so that the workers share them."""
    directory = settings.BASE_DIR / "templates"
    for path in directory.rglob("*.html"):
        get_template(str(path.relative_to(directory)))


def post_worker_init(worker: Any) -> None:
    """Let short requests run between long ones."""
    sys.setswitchinterval(SWITCH_SECONDS)


def pre_request(worker: Any, _request: Any) -> None:
    """Close each connection after its response while the server drains, so that a load balancer opens no other on it."""
    if draining.has_begun():
        worker.cfg.set("keepalive", 0)


def drain(_number: int, _frame: FrameType | None) -> None:
    """Begin to drain at the first SIGTERM. The timer's signal, and a second SIGTERM, stop the server."""
    if draining.has_begun():
        signal.raise_signal(signal.SIGALRM)
        return
    draining.begin()
    signal.setitimer(signal.ITIMER_REAL, settings.WEB_DRAIN_SECONDS)
