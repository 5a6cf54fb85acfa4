"""A flag of the web server that all its processes share: it is stopping, so send no more requests.

gunicorn's parent sets it (portal/gunicorn_conf.py) and /readyz reads it. It is in memory that the children inherit.
"""

import mmap

_flag = mmap.mmap(-1, 1)


def begin() -> None:
    _flag[0] = 1


def has_begun() -> bool:
    return _flag[0] == 1
