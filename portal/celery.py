"""The Celery application of the worker process (`celery -A portal worker`). Tasks are in each app's tasks.py.

A message carries the id of the request that sent it, so that the worker's log lines have it.
"""

import os
from typing import Any

from celery import Celery
from celery.signals import before_task_publish, setup_logging, task_postrun, task_prerun
from kombu.transport import redis

from portal.request_id import ACCEPTED, NO_REQUEST, request_id_var
from portal.tenancy import leave

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

app = Celery("portal")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
for ends in (task_prerun, task_postrun):
    ends.connect(leave)

# Do not put unconfirmed messages back into the queue when the connection is lost. kombu 5.7 tries it on a connection that
# is gone (Channel._connparams reads the hostname of None), and the AttributeError ends the worker for good. A message is
# only a hint: the sweep finds its row, and the message comes again after visibility_timeout.
redis.Channel.do_restore = False


def add_request_id(headers: dict[str, Any], **_: Any) -> None:
    headers["request_id"] = request_id_var.get()


def take_request_id(task: Any, **_: Any) -> None:
    """Set the message's request id. Ignore a malformed one, which could forge lines of the log."""
    given = str(getattr(task.request, "request_id", NO_REQUEST))
    request_id_var.set(given if ACCEPTED.fullmatch(given) else NO_REQUEST)


def drop_request_id(**_: Any) -> None:
    request_id_var.set(NO_REQUEST)


def keep_logging(**_: Any) -> None:
    """Leave logging to settings.LOGGING: while this receiver exists, Celery sets no level of its own (WARNING)."""


setup_logging.connect(keep_logging)
before_task_publish.connect(add_request_id)
task_prerun.connect(take_request_id)
task_postrun.connect(drop_request_id)
