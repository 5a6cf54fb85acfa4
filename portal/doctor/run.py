"""Runs the checks one after the other, each with a time limit, so that nothing that hangs holds them up."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from portal.doctor import aws, database, machine, parts, site
from portal.doctor.findings import Finding, Level, problem
from portal.models import Organization
from portal.monitoring import bounded
from portal.tenancy import all_organizations

SECONDS = 5.0


@dataclass(frozen=True)
class Check:
    """`when_ok`: what holds if nothing is found. `needs_database`: it is left out if PostgreSQL does not answer."""

    name: str
    find: Callable[[], Iterable[Finding]]
    when_ok: str
    needs_database: bool = True


DATABASE = Check("database", database.check_version, "PostgreSQL answers.", needs_database=False)
CHECKS = [
    DATABASE,
    Check("role", database.check_role, "Row-level security applies to the application's role."),
    Check("owner", database.check_owner, "The application's role owns no table."),
    Check("policies", database.check_policies, "Every table of the organizations has row-level security."),
    Check("permissions", database.check_permissions, "The application's role has its rights and no others."),
    Check("pooler", database.check_pooler, "Each connection has a server process of its own."),
    Check("time-outs", database.check_time_outs, "PostgreSQL ends what hangs."),
    Check("migrations", database.check_migrations, "All migrations are applied."),
    Check("clock", machine.check_clock, "This machine and PostgreSQL have the same time."),
    Check("processes", parts.check_processes, "A scheduler and a worker are alive."),
    Check("broker", parts.check_broker, "The broker takes messages.", needs_database=False),
    Check("cache", parts.check_cache, "The cache keeps values.", needs_database=False),
    Check("e-mail", parts.check_mail, "The mail server accepts the portal, or none is asked.", needs_database=False),
    Check("disk", machine.check_disk, "The folders have room.", needs_database=False),
    Check("static files", machine.check_static_files, "The static files are collected.", needs_database=False),
    Check("settings", site.check_settings, "The settings are those of a production site.", needs_database=False),
]
AWS_CLOCK = Check("AWS clock", aws.check_clock, "This machine and AWS have the same time.", needs_database=False)


def run_checks(*, with_aws: bool, seconds: float = SECONDS) -> Iterator[tuple[str, Finding]]:
    """Yield each check's name with what it found; one finding of the level OK if that is nothing.

    `seconds`: the most that a check may take.
    """
    has_database = True
    for check in CHECKS:
        if has_database or not check.needs_database:
            found = run_bounded(check, seconds)
            yield from ((check.name, each) for each in found)
            if check is DATABASE:
                has_database = all(each.level != Level.PROBLEM for each in found)
    if with_aws:
        yield from ((AWS_CLOCK.name, each) for each in run_bounded(AWS_CLOCK, seconds))
        if has_database:
            yield from check_organizations()


def run_bounded(check: Check, seconds: float) -> list[Finding]:
    """Run the check on a thread of its own, and wait for it at most so long."""
    hangs = problem(f"There is no answer within {seconds:g} s.", "Look at what this check asks: it hangs.")
    run = bounded.Check(lambda: list(check.find()), if_hanging=[hangs])
    try:
        found = run.wait(run.start(), time.monotonic() + seconds)
    except Exception as error:  # a check must not stop the others
        why = next(iter(str(error).splitlines()), "")
        found = [
            problem(
                f"The check failed: {type(error).__name__}: {why}", "Fix what the error names, then run this again."
            )
        ]
    return found or [Finding(Level.OK, check.when_ok)]


def check_organizations() -> Iterator[tuple[str, Finding]]:
    with all_organizations("the people who run the site check every organization's account"):
        active = list(Organization.objects.filter(is_active=True).order_by("slug"))
    for organization in active:
        allowed = Finding(Level.OK, f"{organization.slug}: the portal may read what it needs.")
        yield from (("AWS", each) for each in list(aws.check_organization(organization)) or [allowed])
