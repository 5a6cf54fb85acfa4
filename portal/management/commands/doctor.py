"""`manage.py doctor`: checks a site, with the settings of the web process, and says what to do."""

from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from portal.doctor.findings import Level
from portal.doctor.run import SECONDS, run_checks


class Command(BaseCommand):
    help = (
        "Check that this site is set up as the documentation asks, and say what to do. Run it with the settings of the web "
        "process. Exits with 1 if there is a problem; a warning is none."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--aws", action="store_true", help="ask AWS too: its clock, and each organization's role")
        parser.add_argument(
            "--seconds", type=float, default=SECONDS, help="the most that a check may take (%(default)s)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        levels: Counter[Level] = Counter()
        for name, found in run_checks(with_aws=options["aws"], seconds=options["seconds"]):
            levels[found.level] += 1
            self.stdout.write(f"{found.level:8} {name}: {found.what} {found.advice}".rstrip())
        counts = f"{levels[Level.PROBLEM]} problems, {levels[Level.WARNING]} warnings"
        if levels[Level.PROBLEM]:
            raise CommandError(f"{counts}.")
        self.stdout.write(f"{counts}.")
