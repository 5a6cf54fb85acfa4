"""The Celery application of the worker process (`celery -A portal worker`). Tasks are in each app's tasks.py."""

import os

from celery import Celery
from celery.signals import task_postrun, task_prerun

from portal.tenancy import leave

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

app = Celery("portal")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
for ends in (task_prerun, task_postrun):
    ends.connect(leave)
