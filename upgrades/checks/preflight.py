"""PRE-FLIGHT: the checks that the platform's guide (states.py) asks for before an upgrade, each with its evidence.

A check passes, fails, or is unknown. What could not be verified is never a pass. A failed check blocks the trigger
(commands/refusals.py), an unknown one does not. ECS is read as for the pages (inventory/running.py). The platform's own
health comes from probes.py: four requests in parallel, while ECS is being read. Both results are cached for some seconds
for all users. Only one request at a time reads them, and the others wait for its result.
"""

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from portal import soft_cache
from portal.aws.ecs import SHIFTING, DeploymentConfiguration, LoadBalancer
from portal.database.statements import Given, Statement
from portal.models import Organization
from portal.request_id import request_pool
from portal.templatetags.formatting import duration
from portal.times import utc
from upgrades.checks.detection import describe_early_success, find_detection, find_missing_parts
from upgrades.checks.draining import describe_draining
from upgrades.checks.probes import (
    BROKEN,
    Finding,
    get_result,
    probe_agent,
    probe_connectors,
    probe_orchestrator,
    probe_providers,
)
from upgrades.inventory.ecs_services import RunningService
from upgrades.inventory.running import (
    ASKED_BY_ANOTHER,
    FRESH_SECONDS,
    Reading,
    is_cached,
    read_running_services,
)
from upgrades.models import Rollout, is_known_in_ecs, newest_of_each
from upgrades.states import CheckStatus, Outcome, PreflightCheck, inline_label

# No page or API request waits longer than this.
LONGEST_WAIT_SECONDS = 3.6
POLL_SECONDS = 0.1
# A result that refuses a request is at most this old, if there is time to read again. Pages show older results.
BLOCKING_SECONDS = 1.0
QUICK_SECONDS = 0.5
# Statements kept in each process, by the services that they name.
SERVICES_KEPT = 20
OTHER_CONTROLLER = "A controller other than ECS deploys it and supervises its rollouts."
TOO_LATE = "No answer yet. Check again in a few seconds."

PASS, FAIL, UNKNOWN = CheckStatus.PASS, CheckStatus.FAIL, CheckStatus.UNKNOWN

PROBES: dict[PreflightCheck, Callable[[Organization], Finding]] = {
    PreflightCheck.AGENT_HEALTH: probe_agent,
    PreflightCheck.ORCHESTRATOR_HEALTH: probe_orchestrator,
    PreflightCheck.CONNECTORS: probe_connectors,
    PreflightCheck.PROVIDERS: probe_providers,
}


@dataclass(frozen=True)
class Check:
    """One check of a pre-flight, with its result."""

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
    """Run all checks for an upgrade of these services. Opens no transaction.

    `session_ends_at`: None if the caller has no session. Results younger than `fresh_seconds` are reused.
    *Costs* two queries. Waits at most LONGEST_WAIT_SECONDS.
    """
    until = time.monotonic() + LONGEST_WAIT_SECONDS
    asking = ProbeBatch(organization, fresh_seconds=fresh_seconds)
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
    """Run the checks like `run`, but repeat them if one fails: it may have been fixed since a page showed it.

    If the first run was slow, nothing is repeated, so that the caller does not wait twice.
    """
    began = time.monotonic()
    first = run(organization, services, session_ends_at=session_ends_at)
    if first.may_start or time.monotonic() - began > QUICK_SECONDS:
        return first
    again = run(organization, services, session_ends_at=session_ends_at, fresh_seconds=BLOCKING_SECONDS)
    # A check that failed some seconds ago and is unknown now still counts as failed.
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
    """Check that cluster and stack are set, and show tenant and environment for a person to verify."""
    facts = {
        "organization": organization.slug,
        "environment": organization.environment,
        "region": organization.deployment_region,
        "cluster": organization.cluster,
        "stack": organization.deployment_stack or None,
    }
    if organization.cluster is None or not organization.deployment_stack:
        missing = "neither cluster nor stack" if organization.cluster is None else "no stack"
        return Finding(FAIL, f"{organization.name} has {missing}. Staff can set it in the admin.", facts)
    where = f"cluster {organization.cluster} in {organization.deployment_region}"
    return Finding(PASS, f"{organization.name}, {organization.environment}: {where}.", facts)


def check_session(ends_at: datetime | None) -> Finding:
    """Check that the session outlasts a rollout's deadline, so that its user can watch and stop the upgrade."""
    needed = settings.UPGRADE_DEADLINE_SECONDS
    if ends_at is None:
        return Finding(UNKNOWN, "There is no session to check.", {"needed_seconds": needed})
    left = int((ends_at - timezone.now()).total_seconds())
    facts = {"ends_at": utc(ends_at), "left_seconds": left, "needed_seconds": needed}
    if left < needed:
        minutes = f"{max(left, 0) // 60} minutes, but a rollout may take {needed // 60}"
        return Finding(FAIL, f"Your session ends in {minutes}. Sign in again first.", facts)
    return Finding(PASS, f"Your session lasts {duration(left)}.", facts)


# ECS


def read_ecs(organization: Organization, fresh_seconds: float, until: float) -> Reading | None:
    """Return the reading that the pages share. If another request is making the very first one, wait for it."""
    reading = read_running_services(organization, fresh_seconds=fresh_seconds, with_record=False)
    while reading is not None and reading.error == ASKED_BY_ANOTHER and time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        if is_cached(organization):
            reading = read_running_services(organization, fresh_seconds=fresh_seconds, with_record=False)
    return reading


def check_ecs(
    organization: Organization, services: list[str], reading: Reading | None
) -> dict[PreflightCheck, Finding]:
    names = (PreflightCheck.CLUSTER_AND_SERVICES, PreflightCheck.STEADY, PreflightCheck.CIRCUIT_BREAKER)
    if reading is None or not organization.deployment_stack:
        return dict.fromkeys(
            names, Finding(UNKNOWN, "The organization has no cluster or no stack, so ECS was not read.")
        )
    if reading.error:
        facts = {"cluster": organization.cluster, "error": reading.error}
        facts |= {"last_read_at": utc(reading.read_at)} if reading.read_at else {}
        not_known = Finding(UNKNOWN, f"ECS could not be read: {reading.error}.", facts)
        refused = Finding(FAIL, f"ECS refused the request: {reading.error}.", facts)
        return dict.fromkeys(names, not_known) | {names[0]: refused if reading.is_refused else not_known}
    rows = [row for row in reading.services if row.service in services]
    return dict(
        zip(names, (check_services(organization, rows), check_steady(rows), check_detection(rows)), strict=True)
    )


def check_services(organization: Organization, rows: list[RunningService]) -> Finding:
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


def not_known(rows: list[RunningService]) -> str:
    """Return a sentence about the services with an incomplete reply, empty if there are none."""
    left_out = [f"{row.label} ({row.left_out})" for row in rows if row.left_out]
    return f"ECS's reply is incomplete for: {', '.join(left_out)}." if left_out else ""


def check_steady(rows: list[RunningService]) -> Finding:
    """Check that all desired tasks run and no deployment is in progress. Disabled services (desired 0) are skipped."""
    facts = {row.service: build_steady_facts(row) for row in rows}
    bad = [problem for row in rows if (problem := find_problem(row))]
    if bad:
        return Finding(FAIL, f"{'; '.join(bad)}.", facts)
    if not_known(rows):
        return Finding(UNKNOWN, not_known(rows), facts)
    steady = [f"{row.label}{format_counts(row)}" for row in rows if row.state == "steady" and not row.has_no_instance]
    sentences = [f"Steady: {', '.join(steady)}."] if steady else []
    sentences += [f"{row.label}: {describe_draining(row.draining_count)}." for row in rows if row.state == "draining"]
    is_idle = not sentences
    off = [row.label for row in rows if row.state == "disabled"]
    alone = [row.label for row in rows if row.has_no_instance]
    sentences += [f"Nothing runs, for the desired count is 0: {', '.join(off)}."] if off else []
    sentences += [f"Nothing runs, for no container instance matches: {', '.join(alone)}."] if alone else []
    if is_idle and any(row.not_supported for row in rows):
        sentences += [f"ECS does not report this. {OTHER_CONTROLLER}"]
    return Finding(UNKNOWN if is_idle else PASS, " ".join(sentences), facts)


def build_steady_facts(row: RunningService) -> dict[str, Any]:
    facts: dict[str, Any] = {"state": row.state, "running": row.running_count, "desired": row.desired_count}
    facts |= {"draining": row.draining_count} if row.draining_count else {}
    return facts | ({"under_way": asdict(row.under_way)} if row.under_way else {})


def find_problem(row: RunningService) -> str | None:
    """Return why the service is not steady, as a clause; None if it is, or if it is not checked.

    While ECS rolls back, the revision that it rolls back to is in progress again. A deployment started then has no
    completed one behind it: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/deployment-circuit-breaker.html
    """
    named = f"{row.label} "
    if row.state == "rolling" and row.under_way and row.under_way.is_rolling_back:
        return (
            f"{named}is rolling back{format_counts(row)}: {row.under_way}. A deployment started now could neither roll "
            "back nor start tasks"
        )
    if row.state == "rolling":
        return f"{named}is rolling{format_counts(row)}" + (f": {row.under_way}" if row.under_way else "")
    problems = {"failed": "has a failed deployment", "degraded": "runs too few tasks", "missing": "is missing"}
    return f"{named}{problems[row.state]}{format_counts(row)}" if row.state in problems else None


def format_counts(row: RunningService) -> str:
    """Return ` (4 of 4)`, or nothing for a missing service."""
    return "" if row.desired_count is None else f" ({row.running_count} of {row.desired_count})"


def check_detection(rows: list[RunningService]) -> Finding:
    """Check that a failing rollout would be ended, by what the service's strategy has (detection.py).

    Without it, a rollout that cannot succeed continues until the deadline.
    """
    known = [(row, row.configuration, find_detection(row.configuration)) for row in rows if row.configuration]
    facts = {row.service: build_detection_facts(configuration, row.load_balancers) for row, configuration, _ in known}
    if rows and all(row.not_supported for row in rows):
        return Finding(UNKNOWN, OTHER_CONTROLLER, facts)
    off = [f"{row.label} ({detection})" for row, _, detection in known if detection.is_enough is False]
    if off:
        return Finding(FAIL, f"Off for: {', '.join(off)}. A failing rollout would not be stopped.", facts)
    unclear = [f"{row.label} ({detection.strategy})" for row, _, detection in known if detection.is_enough is None]
    if unclear:
        return Finding(UNKNOWN, f"The portal does not know the strategy of: {', '.join(unclear)}.", facts)
    if len(known) < sum(not row.not_supported for row in rows):
        return Finding(UNKNOWN, not_known(rows) or "ECS does not say, for the service is missing.", facts)
    services_by_detection: dict[str, list[str]] = {}
    for row, _, detection in known:
        services_by_detection.setdefault(str(detection), []).append(row.label)
    sentences = [f"On for {', '.join(labels)} ({detection})." for detection, labels in services_by_detection.items()]
    early = [(row.label, describe_early_success(configuration)) for row, configuration, _ in known]
    sentences += [f"{label}: {meaning}" for label, meaning in early if meaning]
    lacking = [(row.label, find_missing_parts(configuration, row.load_balancers)) for row, configuration, _ in known]
    sentences += [
        f"{label}: its load balancer has no {', no '.join(missing)}." for label, missing in lacking if missing
    ]
    return Finding(PASS, " ".join(sentences), facts)


def build_detection_facts(
    configuration: DeploymentConfiguration, load_balancers: tuple[LoadBalancer, ...]
) -> dict[str, Any]:
    """Return the evidence. `enabled` and `rolls_back` are those of the circuit breaker."""
    facts: dict[str, Any] = {
        "strategy": configuration.strategy,
        "enabled": configuration.breaker_enabled,
        "rolls_back": configuration.breaker_rolls_back,
        "alarms": list(configuration.alarm_names) if configuration.alarms_enabled else [],
        "alarms_roll_back": configuration.alarms_roll_back,
        "hooks": [hook.target_type for hook in configuration.hooks],
        "bake_minutes": configuration.bake_minutes,
    }
    if configuration.strategy in SHIFTING and load_balancers:
        facts["load_balancers"] = [asdict(each) for each in load_balancers]
        facts["load_balancers_lack"] = find_missing_parts(configuration, load_balancers)
    early = {"healthy_percent": configuration.healthy_percent, "source_cleanup": configuration.source_cleanup}
    return facts | ({"early_success": early} if configuration.early_success else {})


def check_permission(organization: Organization, services: list[str]) -> Finding:
    """Report the newest attempt to update, because only an update can test the permission. *Costs* one query."""
    newest = max(make_attempts(tuple(services)).read(organization=organization.pk), default=None)
    facts: dict[str, Any] = {"permission": "ecs:UpdateService"}
    if newest is None:
        return Finding(UNKNOWN, "Only an upgrade can test this, and there has not been one yet.", facts)
    created_at, _, upgrade_id, service, outcome = newest
    facts |= {"upgrade_id": upgrade_id, "service": service, "outcome": outcome, "at": utc(created_at)}
    failure = "was denied permission to" if outcome == Outcome.ACCESS_DENIED else "could"
    attempt = f"The last one, {upgrade_id}, {failure} update the {inline_label(service)}."
    return Finding(UNKNOWN, f"Only an upgrade can test this. {attempt}", facts)


@lru_cache(maxsize=SERVICES_KEPT)
def make_attempts(services: tuple[str, ...]) -> Statement:
    attempts = Rollout.objects.attempted().filter(is_known_in_ecs() | Q(outcome=Outcome.ACCESS_DENIED))
    columns = attempts.values_list("upgrade__created_at", "id", "upgrade__upgrade_id", "service", "outcome")
    return Statement(newest_of_each(columns, Given("organization"), services))


# The platform


@dataclass
class ProbeBatch:
    """The four probes of one organization: cached findings, or probes started by this request or by another one.

    Probes run on threads, which use neither the database nor the cache.
    """

    organization: Organization
    fresh_seconds: float
    asked: dict[PreflightCheck, Future[Finding]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.cached() is None and soft_cache.add(f"asking:{self.key}", seconds=2 * LONGEST_WAIT_SECONDS):
            pool = request_pool(len(PROBES), "preflight")
            self.asked = {name: pool.submit(probe, self.organization) for name, probe in PROBES.items()}
            pool.shutdown(wait=False)

    @property
    def key(self) -> str:
        """Return the cache key. It contains the addresses, so a new address does not get the findings of the old one."""
        addresses = [self.organization.platform_agent_url, self.organization.platform_orchestrator_url]
        places = "\n".join([*addresses, *settings.PROBE_NETWORKS])
        return f"preflight:{self.organization.pk}:{hashlib.sha256(places.encode()).hexdigest()}"

    def cached(self) -> dict[PreflightCheck, Dated] | None:
        """Return the cached findings if all four are recent, else None."""
        found = soft_cache.read_as(
            self.key,
            lambda rows: {PreflightCheck(name): Dated(build_finding(row), at) for name, (row, at) in rows.items()},
        )
        oldest = timezone.now() - timedelta(seconds=self.fresh_seconds)
        if found is None or set(found) != set(PROBES):
            return None
        return found if all(dated.checked_at >= oldest for dated in found.values()) else None

    def answers(self, until: float) -> dict[PreflightCheck, Dated]:
        """Return all four findings, at monotonic time `until` at the latest. A probe without an answer is unknown."""
        if self.asked:
            return self.collected(until)
        found = self.cached()
        while found is None and time.monotonic() < until:
            time.sleep(POLL_SECONDS)
            found = self.cached()
        late = Dated(Finding(UNKNOWN, TOO_LATE), timezone.now())
        return found or dict.fromkeys(PROBES, late)

    def collected(self, until: float) -> dict[PreflightCheck, Dated]:
        wait(self.asked.values(), timeout=max(until - time.monotonic(), 0))
        now, late = timezone.now(), Finding(UNKNOWN, TOO_LATE)
        findings = {name: get_result(each, BROKEN) if each.done() else late for name, each in self.asked.items()}
        found = {name: Dated(finding, now) for name, finding in findings.items()}
        if all(each.done() for each in self.asked.values()):
            rows = {name.value: (as_row(dated.finding), dated.checked_at) for name, dated in found.items()}
            soft_cache.write(self.key, rows, seconds=FRESH_SECONDS)
        soft_cache.delete(f"asking:{self.key}")
        return found


def as_row(finding: Finding) -> dict[str, Any]:
    """Return the finding as plain data, which the cache takes."""
    return {**asdict(finding), "status": finding.status.value}


def build_finding(row: dict[str, Any]) -> Finding:
    return Finding(**{**row, "status": CheckStatus(row["status"])})
