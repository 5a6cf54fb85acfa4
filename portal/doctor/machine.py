"""Checks of this machine: its clock against PostgreSQL's, and the space of the folders that the portal uses."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from portal.doctor.database import connect, fetch
from portal.doctor.findings import Finding, problem, warning

# Seconds. A code of an authenticator app counts for 30, and PostgreSQL's clock decides leases and deadlines.
WARN_APART, MOST_APART = 2.0, 15.0
MANIFEST = "staticfiles.json"
MIB = 1024 * 1024
# Below the first number there is no room to work, below the second one for logs and temporary files of a busy day.
LEAST_FREE, FEW_FREE = 100 * MIB, 1024 * MIB
LEAST_INODES, FEW_INODES = 1_000, 10_000


def check_clock() -> Iterator[Finding]:
    """This machine's clock must agree with PostgreSQL's."""
    with connect() as raw:
        fetch(raw, "SELECT 1")  # so that the next round trip is a short one
        before = time.time()
        (theirs,) = fetch(raw, "SELECT extract(epoch FROM clock_timestamp())::float")
        after = time.time()
    yield from compare_clocks("PostgreSQL's", theirs - (before + after) / 2, (after - before) / 2)


def compare_clocks(whose: str, ahead: float, uncertain: float) -> Iterator[Finding]:
    """Yield what the difference of two clocks means. In seconds; `uncertain`: how wrong the difference may be.

    >>> [found.what for found in compare_clocks("AWS's", -40.2, 0.5)]
    ["This machine's clock is 40.2 s ahead of AWS's."]
    """
    if abs(ahead) - uncertain <= WARN_APART:
        return
    make = problem if abs(ahead) - uncertain > MOST_APART else warning
    yield make(
        f"This machine's clock is {abs(ahead):.1f} s {'behind' if ahead > 0 else 'ahead of'} {whose}.",
        "Let NTP (chrony, systemd-timesyncd) set the clocks of all machines: sessions, codes of authenticator apps and "
        "signatures of calls to AWS depend on them.",
    )


def check_disk() -> Iterator[Finding]:
    """The folders that the portal writes to or serves from must have room, and the temporary one must take a file."""
    temporary = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"doctor")
            file.flush()
    except OSError as error:
        yield problem(f"{temporary} takes no file ({error.strerror}).", "Free space there, or set TMPDIR.")
    folders = {temporary, *filter(os.path.isdir, [settings.STATIC_ROOT or "", os.environ.get("DATA_DIR", "")])}
    for folder in sorted(map(str, folders)):
        yield from check_folder(folder)


def check_folder(folder: str) -> Iterator[Finding]:
    """Yield what is scarce in a folder. Some file systems have no fixed number of inodes (`f_files` 0)."""
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    if free < FEW_FREE:
        make = problem if free < LEAST_FREE else warning
        yield make(f"{folder} has {free // MIB} MiB left.", "Free space, or give it a larger disk.")
    if space.f_files and space.f_favail < FEW_INODES:
        make = problem if space.f_favail < LEAST_INODES else warning
        yield make(f"{folder} has {space.f_favail} inodes left.", "Delete files that no one needs there.")


def check_static_files() -> Iterator[Finding]:
    """`collectstatic` must have run: without its manifest every page is an error."""
    if settings.STATIC_ROOT and not (Path(settings.STATIC_ROOT) / MANIFEST).is_file():
        yield problem(f"{settings.STATIC_ROOT} has no {MANIFEST}.", "Run `manage.py collectstatic`.")
