"""Gunicorn reads this file by itself when it starts in this folder."""

from portal.local.exposure import on_starting as on_starting
