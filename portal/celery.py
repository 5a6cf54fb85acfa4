"""The Celery application of the worker process (`celery -A portal worker`). Tasks are in each app's tasks.py."""

import os

from celery import Celery
from celery.signals import task_postrun, task_prerun
from kombu.transport import redis

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
