"""Settings with which the product's configuration of gunicorn serves the bare application of bench/floor.py."""

from portal.settings import *

ROOT_URLCONF = "bench.floor"
