"""Refuses a Python that is too old. The installation is in install.py.

`make` runs this file with the machine's Python, so it must parse on Python 2.7: no annotations, no f-strings.
"""

import sys

OLDEST = (3, 11)

if sys.version_info < OLDEST:
    sys.exit(
        "The portal needs Python 3.11 or newer and this is Python {}.{}: install a newer one and name it, such as "
        "`make up PYTHON=python3.11`.".format(*sys.version_info[:2])
    )

from portal.local.install import main  # noqa: E402 - an old Python cannot parse it

if __name__ == "__main__":
    main(sys.argv[1:])
