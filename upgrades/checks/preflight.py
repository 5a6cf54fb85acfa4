"""PRE-FLIGHT: what the platform's guide (states.py) asks to be verified before an upgrade, each check with its evidence.

A check passes, fails, or is not known: what could not be verified is never a pass. A failing one blocks the trigger
(commands.py); one that is not known does not. ECS is read as the pages read it (platform.py), the platform's own health is
asked by probes.py: four requests side by side, while ECS is being asked. Both are kept some seconds for everybody, and
asked for by one request at a time; the others wait for its answer.
"""

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from portal import soft_cache
from portal.models import Organization
from portal.times import utc
from upgrades.checks.probes import (
    BROKEN,
    Finding,
    probe_agent,
    probe_connectors,
    probe_orchestrator,
    probe_providers,
    result_of,
)
from upgrades.inventory.running import ASKED_BY_ANOTHER, FRESH_SECONDS, Reading, ServiceNow, is_kept, read_platform
from upgrades.models import Rollout, is_known_in_ecs
from upgrades.states import CheckStatus, Outcome, PreflightCheck, in_a_sentence

# A page or request waits no longer, whoever asks.
LONGEST_WAIT_SECONDS = 3.6
POLL_SECONDS = 0.1
# What refuses a request was read at most so long ago, where there is time to ask; pages show what is some seconds old.
BLOCKING_SECONDS = 1.0
QUICK_SECONDS = 0.5
OTHER_CONTROLLER = "Another controller than ECS deploys it, and watches over its rollouts."
TOO_LATE = "Not answered yet; look again in a few seconds."

PASS, FAIL, UNKNOWN = CheckStatus.PASS, CheckStatus.FAIL, CheckStatus.UNKNOWN

PROBES: dict[PreflightCheck, Callable[[Organization], Finding]] = {
    PreflightCheck.AGENT_HEALTH: probe_agent,
    PreflightCheck.ORCHESTRATOR_HEALTH: probe_orchestrator,
    PreflightCheck.CONNECTORS: probe_connectors,
    PreflightCheck.PROVIDERS: probe_providers,
}


@dataclass(frozen=True)
class Check:
    """One line of a pre-flight."""

    name: str
    label: str
    status: CheckStatus
    detail: str
    evidence: dict[str, Any]
    checked_at: datetime


@dataclass(frozen=True)
class Preflight:
    """All checks, in the order in which people read them."""

    checks: list[Check]
    checked_at: datetime

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if check.status == FAIL]

    @property
    def unknown(self) -> list[Check]:
        return [check for check in self.checks if check.status == UNKNOWN]

    @property
    def may_start(self) -> bool:
        return not self.failed


def run(
    organization: Organization,
    services: list[str],
    *,
    session_ends_at: datetime | None,
    fresh_seconds: float = FRESH_SECONDS,
) -> Preflight:
    """Check everything for an upgrade of these services; LONGEST_WAIT_SECONDS at most, nothing in a transaction.

    `session_ends_at`: None where nobody's session is behind it. What was found less than `fresh_seconds` ago is not asked
    for again. Two queries.
    """
    until = time.monotonic() + LONGEST_WAIT_SECONDS
    asking = Asking(organization, fresh_seconds=fresh_seconds)
    reading = read_ecs(organization, fresh_seconds, until)
    findings = {
        PreflightCheck.ENVIRONMENT: check_environment(organization),
        PreflightCheck.SESSION: check_session(session_ends_at),
        **check_ecs(organization, services, reading),
        PreflightCheck.PERMISSION: check_permission(organization, services),
    }
    now = timezone.now()
    dated = {name: Dated(finding, now) for name, finding in findings.items()}
    for name in (PreflightCheck.CLUSTER_AND_SERVICES, PreflightCheck.STEADY, PreflightCheck.CIRCUIT_BREAKER):
        dated[name] = Dated(findings[name], reading.tried_at or now if reading else now)
    dated |= asking.answers(until)
    return Preflight([as_check(name, dated[name]) for name in PreflightCheck], checked_at=now)


def preflight_to_start(
    organization: Organization, services: list[str], *, session_ends_at: datetime | None
) -> Preflight:
    """As `run`, but what would block is asked for anew: it may have been mended since a page showed it.

    Not where the first look has taken its time: nobody waits twice.
    """
    began = time.monotonic()
    first = run(organization, services, session_ends_at=session_ends_at)
    if first.may_start or time.monotonic() - began > QUICK_SECONDS:
        return first
    again = run(organization, services, session_ends_at=session_ends_at, fresh_seconds=BLOCKING_SECONDS)
    # What failed some seconds ago and cannot be told now has not become better by that.
    failed, unknown = ({check.name for check in checks} for checks in (first.failed, again.unknown))
    return first if failed & unknown else again


@dataclass(frozen=True)
class Dated:
    finding: Finding
    checked_at: datetime


def as_check(name: PreflightCheck, dated: Dated) -> Check:
    finding = dated.finding
    return Check(name.value, str(name.label), finding.status, finding.detail, finding.evidence, dated.checked_at)


def check_environment(organization: Organization) -> Finding:
    """The right tenant and environment, for a person to read; nothing rolls without cluster and stack."""
    facts = {
        "organization": organization.slug,
        "environment": organization.environment,
        "region": organization.deployment_region,
        "cluster": organization.cluster,
        "stack": organization.deployment_stack or None,
    }
    if organization.cluster is None or not organization.deployment_stack:
        missing = "neither cluster nor stack" if organization.cluster is None else "no stack"
        return Finding(FAIL, f"{organization.name} names {missing}. Staff can set it in the admin.", facts)
    where = f"cluster {organization.cluster} in {organization.deployment_region}"
    return Finding(PASS, f"{organization.name}, {organization.environment}: {where}.", facts)


def check_session(ends_at: datetime | None) -> Finding:
    """Whoever starts an upgrade must be able to watch and stop it: the session outlives a rollout's deadline."""
    needed = settings.UPGRADE_DEADLINE_SECONDS
    if ends_at is None:
        return Finding(UNKNOWN, "No session stands behind this.", {"needed_seconds": needed})
    left = int((ends_at - timezone.now()).total_seconds())
    facts = {"ends_at": utc(ends_at), "left_seconds": left, "needed_seconds": needed}
    if left < needed:
        minutes = f"{max(left, 0) // 60} minutes, and a rollout may take {needed // 60}"
        return Finding(FAIL, f"The session ends in {minutes}: sign in again first.", facts)
    return Finding(PASS, f"The session lasts {left // 60} minutes more.", facts)


# ECS


def read_ecs(organization: Organization, fresh_seconds: float, until: float) -> Reading | None:
    """The reading that the pages share. While another request takes the very first one, wait for it."""
    reading = read_platform(organization, fresh_seconds=fresh_seconds)
    while reading is not None and reading.error == ASKED_BY_ANOTHER and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        if is_kept(organization):
            reading = read_platform(organization, fresh_seconds=fresh_seconds)
    return reading


def check_ecs(
    organization: Organization, services: list[str], reading: Reading | None
) -> dict[PreflightCheck, Finding]:
    names = (PreflightCheck.CLUSTER_AND_SERVICES, PreflightCheck.STEADY, PreflightCheck.CIRCUIT_BREAKER)
    if reading is None or not organization.deployment_stack:
        return dict.fromkeys(names, Finding(UNKNOWN, "There is no place in ECS to look at."))
    if reading.error:
        facts = {"cluster": organization.cluster, "error": reading.error}
        facts |= {"last_read_at": utc(reading.read_at)} if reading.read_at else {}
        not_known = Finding(UNKNOWN, f"ECS does not say: {reading.error}.", facts)
        refused = Finding(FAIL, f"ECS refuses to be read: {reading.error}.", facts)
        return dict.fromkeys(names, not_known) | {names[0]: refused if reading.is_refused else not_known}
    rows = [row for row in reading.services if row.service in services]
    return dict(zip(names, (check_services(organization, rows), check_steady(rows), check_breaker(rows)), strict=True))


def check_services(organization: Organization, rows: list[ServiceNow]) -> Finding:
    missing = [row.service_name for row in rows if row.state == "missing"]
    foreign = {row.service: row.controller for row in rows if row.not_supported}
    facts: dict[str, Any] = {"cluster": organization.cluster, "services": [row.service_name for row in rows]}
    facts |= {"missing": missing} if missing else {}
    facts |= {"controllers": foreign} if foreign else {}
    bad = [f"Not in the cluster {organization.cluster}: {', '.join(missing)}."] if missing else []
    bad += [f"{row.label}: {row.not_supported}." for row in rows if row.not_supported]
    if bad:
        return Finding(FAIL, " ".join(bad), facts)
    if not_known(rows):
        return Finding(UNKNOWN, not_known(rows), facts)
    counted = "The service is" if len(rows) == 1 else f"All {len(rows)} services are"
    return Finding(PASS, f"{counted} in the cluster {organization.cluster}.", facts)


def not_known(rows: list[ServiceNow]) -> str:
    """Return what ECS left out, by service, in a sentence; empty when it said enough."""
    left_out = [f"{row.label} ({row.left_out})" for row in rows if row.left_out]
    return f"ECS's reply says too little of: {', '.join(left_out)}." if left_out else ""


def check_steady(rows: list[ServiceNow]) -> Finding:
    """Every task that should run does, and nothing rolls. A disabled service (desired 0) has nothing to be steady."""
    facts = {
        row.service: {"state": row.state, "running": row.running_count, "desired": row.desired_count} for row in rows
    }
    said = {
        "rolling": "is rolling",
        "failed": "was left by a deployment that failed",
        "degraded": "runs too few tasks",
        "missing": "is missing",
    }
    bad = [f"{row.label} {said[row.state]}{counts_of(row)}" for row in rows if row.state in said]
    if bad:
        return Finding(FAIL, f"{'; '.join(bad)}.", facts)
    if not_known(rows):
        return Finding(UNKNOWN, not_known(rows), facts)
    steady = [f"{row.label}{counts_of(row)}" for row in rows if row.state == "steady"]
    if not steady and any(row.not_supported for row in rows):
        return Finding(UNKNOWN, f"ECS does not say. {OTHER_CONTROLLER}", facts)
    if not steady:
        return Finding(UNKNOWN, "Nothing runs: the desired count is 0.", facts)
    return Finding(PASS, f"Steady: {', '.join(steady)}.", facts)


def counts_of(row: ServiceNow) -> str:
    """` (4 of 4)`; nothing for a service that is not there."""
    return "" if row.desired_count is None else f" ({row.running_count} of {row.desired_count})"


def check_breaker(rows: list[ServiceNow]) -> Finding:
    """Without the circuit breaker a rollout that cannot succeed goes on until the deadline."""
    facts = {
        row.service: {"enabled": row.breaker_enabled, "rolls_back": row.breaker_rolls_back}
        for row in rows
        if row.breaker_enabled is not None
    }
    if rows and all(row.not_supported for row in rows):
        return Finding(UNKNOWN, OTHER_CONTROLLER, facts)
    rows = [row for row in rows if not row.not_supported]
    off = [row.label for row in rows if row.breaker_enabled is False]
    stays = [row.label for row in rows if row.breaker_enabled and not row.breaker_rolls_back]
    if off:
        return Finding(FAIL, f"Off for: {', '.join(off)}. A rollout that fails would not be stopped.", facts)
    if len(facts) < len(rows):
        return Finding(UNKNOWN, not_known(rows) or "ECS does not say, for the service is missing.", facts)
    if stays:
        return Finding(PASS, f"On, but without a rollback for: {', '.join(stays)}.", facts)
    return Finding(PASS, "On, with a rollback.", facts)


def check_permission(organization: Organization, services: list[str]) -> Finding:
    """Whether AWS lets the portal update cannot be tried without doing it: the newest attempt tells most. One query."""
    newest = (
        Rollout.objects.filter(organization=organization, service__in=services)
        .filter(is_known_in_ecs() | Q(outcome=Outcome.ACCESS_DENIED))
        .select_related("upgrade")
        .order_by("-upgrade__created_at", "-id")
        .first()
    )
    facts: dict[str, Any] = {"permission": "ecs:UpdateService"}
    if newest is None:
        return Finding(UNKNOWN, "Cannot be tried without doing it, and nobody has done it here before.", facts)
    facts |= {"upgrade_id": newest.upgrade.upgrade_id, "service": newest.service, "outcome": newest.outcome}
    facts |= {"at": utc(newest.upgrade.created_at)}
    said = "was denied it" if newest.outcome == Outcome.ACCESS_DENIED else "had it"
    attempt = f"The newest attempt, {newest.upgrade.upgrade_id}, {said} for the {in_a_sentence(newest.service)}."
    return Finding(UNKNOWN, f"Cannot be tried without doing it. {attempt}", facts)


# The platform


@dataclass
class Asking:
    """The four probes of one organization: findings that were kept, or asked for by this request, or by another one.

    They run on threads, which touch neither the database nor the memory.
    """

    organization: Organization
    fresh_seconds: float
    asked: dict[PreflightCheck, Future[Finding]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.kept() is None and soft_cache.is_first(f"asking:{self.key}", seconds=2 * LONGEST_WAIT_SECONDS):
            pool = ThreadPoolExecutor(max_workers=len(PROBES), thread_name_prefix="preflight")
            self.asked = {name: pool.submit(probe, self.organization) for name, probe in PROBES.items()}
            pool.shutdown(wait=False)

    @property
    def key(self) -> str:
        """The addresses are part of it: a finding about another one tells nothing."""
        addresses = [self.organization.platform_agent_url, self.organization.platform_orchestrator_url]
        said = "\n".join([*addresses, *settings.PROBE_NETWORKS])
        return f"preflight:{self.organization.pk}:{hashlib.sha256(said.encode()).hexdigest()}"

    def kept(self) -> dict[PreflightCheck, Dated] | None:
        """What was found lately, of all four."""
        found = soft_cache.recall_as(
            self.key,
            lambda rows: {PreflightCheck(name): Dated(Finding(**row), at) for name, (row, at) in rows.items()},
        )
        oldest = timezone.now() - timedelta(seconds=self.fresh_seconds)
        if found is None or set(found) != set(PROBES):
            return None
        return found if all(dated.checked_at >= oldest for dated in found.values()) else None

    def answers(self, until: float) -> dict[PreflightCheck, Dated]:
        """All four, at that time (monotonic) at the latest; one that is not there by then is not known."""
        if self.asked:
            return self.collected(until)
        found = self.kept()
        while found is None and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            found = self.kept()
        late = Dated(Finding(UNKNOWN, TOO_LATE), timezone.now())
        return found or dict.fromkeys(PROBES, late)

    def collected(self, until: float) -> dict[PreflightCheck, Dated]:
        wait(self.asked.values(), timeout=max(until - time.monotonic(), 0))
        now, late = timezone.now(), Finding(UNKNOWN, TOO_LATE)
        findings = {name: result_of(each, BROKEN) if each.done() else late for name, each in self.asked.items()}
        found = {name: Dated(finding, now) for name, finding in findings.items()}
        if all(each.done() for each in self.asked.values()):
            rows = {name.value: (asdict(dated.finding), dated.checked_at) for name, dated in found.items()}
            soft_cache.remember(self.key, rows, seconds=FRESH_SECONDS)
        soft_cache.forget(f"asking:{self.key}")
        return found
