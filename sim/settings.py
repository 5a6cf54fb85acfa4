"""The product's settings, for the simulation: database functions that return virtual time, and a broker in memory."""

import os
from pathlib import Path

from portal.settings import *
from sim.clock import connection_options

DATABASES["default"]["ENGINE"] = "sim.backend"
DATABASES["default"]["CONN_HEALTH_CHECKS"] = False
DATABASES["default"]["CONN_MAX_AGE"] = None
# The functions in the schema `turned` hide those of PostgreSQL (clock.py).
DATABASES["default"]["OPTIONS"]["options"] = connection_options(Path(os.environ["SIM_CLOCK"]))
# Messages are lost: the workers of a world find due rows as the sweep does.
CELERY_BROKER_URL = "memory://"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
