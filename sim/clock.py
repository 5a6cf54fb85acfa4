"""Virtual time, for the process and for its database.

The schema `turned` has PostgreSQL's own clock functions under their own names. It stands ahead of `pg_catalog` in the
search path, and must exist before `migrate`, because a column default binds to its function when the table is made.
The functions read a file that this process writes: setting the time then costs no round trip.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

# Always the same, so that a seed gives the same times everywhere. In the future, so that no credentials expire for
# botocore, which compares their end with real time.
# Where the clients of the portal find AWS. Nothing listens there: network.py carries their requests.
ENDPOINT = "http://aws.sim"
BEGINNING = datetime(2031, 3, 3, 9, 0, 0, tzinfo=UTC).timestamp()
CLOCK_FUNCTIONS = ("statement_timestamp", "now", "transaction_timestamp", "clock_timestamp")

SCHEMA = "CREATE SCHEMA turned;" + "".join(
    f"CREATE FUNCTION turned.{name}() RETURNS timestamptz LANGUAGE sql STABLE AS "
    "$$ SELECT to_timestamp(pg_read_file(current_setting('sim.clock'))::float8) $$;"
    for name in CLOCK_FUNCTIONS
)


def connection_options(clock: Path) -> str:
    """Return the options of each connection to a database whose time is in this file."""
    return f"-c search_path=turned,pg_catalog,public -c jit=off -c sim.clock={clock}"


class VirtualClock:
    """Seconds since the epoch that only the scheduler advances. The database follows before its next statement."""

    def __init__(self) -> None:
        self.seconds = self._in_database = BEGINNING
        self._file: int | None = None

    def write_to(self, path: Path) -> None:
        """Let the database read the time from this file."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.chmod(path, 0o644)
        self._write()

    def now(self) -> float:
        return self.seconds

    def restart(self) -> None:
        self.seconds = BEGINNING

    def as_datetime(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def advance_to(self, moment: float) -> None:
        # Microseconds, as PostgreSQL has no finer ones.
        self.seconds = max(self.seconds, round(moment, 6))

    def set_database(self) -> None:
        """Set the database's clock to this one, if it differs."""
        if self._in_database != self.seconds:
            self._write()

    def _write(self) -> None:
        if self._file is not None:
            # Always of one length, so that no rest of an earlier time is left.
            os.pwrite(self._file, f"{self.seconds:018.6f}".encode(), 0)
            self._in_database = self.seconds


CLOCK = VirtualClock()
