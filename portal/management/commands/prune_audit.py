"""`manage.py prune_audit`: export old audit rows to a file, then delete them."""

from argparse import ArgumentParser
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils import timezone

from portal.audit_pruning import PruningRefused, prune


class Command(BaseCommand):
    help = (
        "Export the audit rows from before a day (UTC) to a new file, one JSON object a line, and delete them once the "
        "file is on disk. Run it with the DATABASE_URL of the maintenance role: the application's role may not delete."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--before", type=date.fromisoformat, help="2026-01-31; default: AUDIT_RETENTION_DAYS ago")
        parser.add_argument("--export", type=Path, required=True, help="a file that does not exist yet")

    def handle(self, *args: Any, **options: Any) -> None:
        newest = timezone.now().date() - timedelta(days=settings.AUDIT_RETENTION_DAYS)
        before: date = options["before"] or newest
        if before > newest:
            days = settings.AUDIT_RETENTION_DAYS
            raise CommandError(
                f"Rows of the last {days} days are kept (AUDIT_RETENTION_DAYS): at most --before {newest}."
            )
        file: Path = options["export"]
        try:
            parts = prune(datetime.combine(before, time.min, tzinfo=UTC), file)
        except PruningRefused as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"{file} cannot be written, so nothing was deleted: {error.strerror}.") from error
        except DatabaseError as error:
            raise CommandError(
                f"The database refused: {str(error).splitlines()[0]}. {file} may be incomplete."
            ) from error
        for part in parts:
            self.stdout.write(f"{part.chain.label}: {part.rows} rows, up to {part.up_to} {part.last_hash}")
        total = sum(part.rows for part in parts)
        self.stdout.write(
            f"{total} rows exported to {file} and deleted." if parts else f"Nothing is older than {before}."
        )
