"""The product's settings, with one more route: the signed-in no-op (bench/product_urls.py)."""

from portal.settings import *

ROOT_URLCONF = "bench.product_urls"
