"""The portal's own validation of an upgrade, in the background: probes of the platform, looks at what it left in ECS.

One run for each upgrade (ValidationRun), claimed under a lease like a rollout. A step asks everything that has not passed
yet, side by side, and writes what came of it; the run ends when all has passed or been signed, when its time is over, or
when a later upgrade rolls what this one left. What a person signed is neither asked nor written.
"""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django.db.models.functions import Now

from portal import leases
from portal.leases import Claim, LeaseLost
from portal.models import Organization
from portal.templatetags.words import duration
from upgrades.checks.matrix import NOT_YET, open_matrix, rows_of, settle, write_row
from upgrades.checks.probes import (
    BROKEN,
    Choice,
    Finding,
    choose_provider,
    probe_agent,
    probe_connector_path,
    probe_orchestrator,
    probe_portal_health,
    probe_portal_views,
    probe_provider_path,
    probe_sign_in,
    result_of,
)
from upgrades.checks.self_check import open_own_views
from upgrades.checks.steadiness import LOOK_SECONDS, Look, disturbances_so_far, judge_look, look_at
from upgrades.events import tell
from upgrades.models import Rollout, Upgrade, UpgradeCheck, ValidationRun, is_known_in_ecs
from upgrades.notifications import announce_validation_missing
from upgrades.states import (
    AUTOMATIC,
    CheckStatus,
    EventKind,
    MatrixRow,
    Outcome,
    PlatformService,
    Stage,
    Validation,
)

logger = logging.getLogger(__name__)

# Once the services have proven steady nothing is waited for by the second.
LATER_SECONDS = 60
# The lease is renewed while probes take their time (a path through a provider takes up to 30 s).
RENEW_SECONDS = 5
ROWS_A_SWEEP = 50

PROBES: dict[MatrixRow, tuple[Callable[[Organization], Finding], ...]] = {
    MatrixRow.SIGN_IN_PAGE: (probe_sign_in,),
    MatrixRow.PLATFORM_HEALTH: (probe_agent, probe_orchestrator, probe_portal_health),
    MatrixRow.CONNECTOR_PATH: (probe_connector_path,),
    MatrixRow.PORTAL_VIEWS: (probe_portal_views,),
}
PROBED = {*PROBES, MatrixRow.PROVIDER_PATH}
# A provider is paid for its completion: seconds to wait after each try that failed, and no more tries than these.
WAITS_AFTER_PROVIDER = [60, 120, 240, 480]


def validate(run_id: int) -> bool:
    """Do the one next step of the run, if it is due and nobody else does. Returns whether a step was made.

    Safe to call at any time, from any process. One AWS call, eight probes at most.
    """
    claim = take(run_id)
    if claim is None:
        return False
    try:
        try:
            step(claim)
        except (OperationalError, InterfaceError, LeaseLost):
            raise
        except Exception:
            # It is tried again until the run's time is over; then the rows stay for people.
            logger.exception("validation run %s failed", run_id)
            claim.release(seconds=LATER_SECONDS)
    except LeaseLost:
        logger.warning("validation run %s: lease lost, nothing written", run_id)
    return True


def take(run_id: int) -> Claim[ValidationRun] | None:
    rows = ValidationRun.unfinished().filter(leases.due(), pk=run_id)
    for claim in leases.take(rows.select_related("organization", "upgrade__organization")):
        return claim
    return None


def step(claim: Claim[ValidationRun]) -> None:
    """1. What is still open? 2. Probe and look, no transaction open. 3. Write, and end the run where nothing is left."""
    run = claim.row
    checks = {
        MatrixRow(check.name): check
        for check in UpgradeCheck.objects.filter(upgrade=run.upgrade, stage=Stage.VALIDATION)
    }
    open_rows = [row for row in MatrixRow if row in checks and is_open(run, checks[row])]
    completed = completed_of(run.upgrade)
    successor = find_successor(run.upgrade, completed)
    if successor:
        return end(claim, checks, words_of(successor))
    if not run.organization.is_active:
        return end(claim, checks, f"{run.organization.name} was suspended: nothing of it is probed.")
    if claim.now >= run.ends_at:
        return end(claim, checks, None)
    findings = ask(claim, [row for row in open_rows if row in PROBED and is_due(claim, checks[row])], checks)
    look = look_at(claim, completed) if MatrixRow.MONITORING in open_rows else None
    write(claim, checks, findings, look)


def is_open(run: ValidationRun, check: UpgradeCheck) -> bool:
    """Whether the portal still has to check the row. What it found before the run was begun (again) does not count."""
    if check.name not in AUTOMATIC or check.checked_by_id is not None:
        return False
    return check.status != CheckStatus.PASS or not run.found(check)


def is_due(claim: Claim[ValidationRun], check: UpgradeCheck) -> bool:
    """Whether the row may be probed now: always, but for what costs money."""
    tries = tries_of(claim.row, check) if check.name == MatrixRow.PROVIDER_PATH else 0
    if tries == 0:
        return True
    if tries > len(WAITS_AFTER_PROVIDER) or check.checked_at is None:
        return False
    return claim.now >= check.checked_at + timedelta(seconds=WAITS_AFTER_PROVIDER[tries - 1])


def tries_of(run: ValidationRun, check: UpgradeCheck) -> int:
    """How many completions this run has asked for."""
    return int(check.evidence.get("tries", 0)) if run.found(check) else 0


def find_successor(upgrade: Upgrade, completed: list[Rollout]) -> Rollout | None:
    """The rollout of a later upgrade that touched a service which this one completed. One query."""
    services = [rollout.service for rollout in completed]
    later = Rollout.objects.filter(
        is_known_in_ecs(),
        organization=upgrade.organization_id,
        service__in=services,
        upgrade_id__gt=upgrade.pk,
    )
    return later.select_related("upgrade").order_by("upgrade_id", "position").first()


def words_of(successor: Rollout) -> str:
    label = PlatformService(successor.service).label
    return f"{label} was rolled again by {successor.upgrade.upgrade_id}: what this upgrade left does not run any more."


# --- probes ---------------------------------------------------------------------------------------------------------


def ask(
    claim: Claim[ValidationRun], rows: list[MatrixRow], checks: dict[MatrixRow, UpgradeCheck]
) -> dict[MatrixRow, Finding]:
    """Probe these rows side by side, the lease renewed meanwhile. No query on the threads: this portal's own views, which
    need some, are opened here while the others answer."""
    if not rows:
        return {}
    organization = claim.row.organization
    with ThreadPoolExecutor(max_workers=8) as pool:
        asked = {row: [pool.submit(probe, organization) for probe in PROBES[row]] for row in rows if row in PROBES}
        found = {}
        if MatrixRow.PROVIDER_PATH in rows:
            found[MatrixRow.PROVIDER_PATH] = ask_provider(claim, pool, checks[MatrixRow.PROVIDER_PATH])
        own = [open_own_views(claim.row.upgrade)] if MatrixRow.PORTAL_VIEWS in rows else []
        wait_for(claim, {future for futures in asked.values() for future in futures})
    answers = {row: [result_of(each, BROKEN) for each in futures] for row, futures in asked.items()}
    if own:
        answers[MatrixRow.PORTAL_VIEWS] += own
    return found | {row: combine(findings) for row, findings in answers.items()}


def ask_provider(claim: Claim[ValidationRun], pool: ThreadPoolExecutor, check: UpgradeCheck) -> Finding:
    """Choose a provider, count the try, have it complete a prompt. What is not asked is not counted."""
    organization, tries = claim.row.organization, tries_of(claim.row, check)
    choosing = pool.submit(choose_provider, organization)
    wait_for(claim, {choosing})
    chosen = result_of(choosing, Choice(None, BROKEN))
    if chosen.name is None:
        return chosen.otherwise.with_evidence(tries=tries)
    count_try(claim, check, tries + 1)
    completing = pool.submit(probe_provider_path, organization, chosen.name)
    wait_for(claim, {completing})
    return result_of(completing, BROKEN).with_evidence(tries=tries + 1)


def wait_for(claim: Claim[ValidationRun], futures: set[Future[Any]]) -> None:
    """The lease renewed meanwhile."""
    while futures:
        futures = wait(futures, timeout=RENEW_SECONDS).not_done
        claim.renew()


def count_try(claim: Claim[ValidationRun], check: UpgradeCheck, tries: int) -> None:
    """Committed before the call, so that a worker that dies in it does not make it free.

    What the row holds of an earlier run goes in the same statement: the time of the try makes it a row of this one.
    """
    fields = {"evidence": {**check.evidence, "tries": tries}, "checked_at": claim.now}
    if not claim.row.found(check):
        fields |= {"status": CheckStatus.UNKNOWN, "detail": NOT_YET, "evidence": {"tries": tries}}
    with transaction.atomic():
        claim.renew()
        UpgradeCheck.objects.filter(pk=check.pk, checked_by__isnull=True).update(**fields)


def combine(findings: list[Finding]) -> Finding:
    """The worst of them, all of them told."""
    if len(findings) == 1:
        return findings[0]
    statuses = {finding.status for finding in findings}
    worst = next(each for each in (CheckStatus.FAIL, CheckStatus.UNKNOWN, CheckStatus.PASS) if each in statuses)
    detail = " ".join(finding.detail for finding in findings)
    return Finding(worst, detail, {"asked": [finding.evidence for finding in findings]})


# --- writing ----------------------------------------------------------------------------------------------------------


def write(
    claim: Claim[ValidationRun],
    checks: dict[MatrixRow, UpgradeCheck],
    findings: dict[MatrixRow, Finding],
    look: Look | None,
) -> None:
    """One transaction, under the upgrade's lock and guarded by the lease."""
    with transaction.atomic():
        upgrade = Upgrade.objects.locked(claim.row.upgrade_id)
        monitoring = checks.get(MatrixRow.MONITORING)
        since = claim.row.steady_since
        if look is not None and monitoring is not None:
            since, finding = judge_look(claim, monitoring, look)
            put(upgrade, monitoring, finding, checked_at=monitoring.checked_at if look.error else claim.now)
        for row, finding in findings.items():
            put(upgrade, checks[row], finding, checked_at=claim.now)
        left = [row for row, check in checks.items() if is_open(claim.row, check)]
        if left:
            seconds = LOOK_SECONDS if MatrixRow.MONITORING in left else LATER_SECONDS
            claim.release(seconds=seconds, steady_since=since)
        else:
            claim.write(steady_since=since, is_done=True, next_check_at=None, lease_until=None)
        settle(upgrade, actor=None)


def put(upgrade: Upgrade, check: UpgradeCheck, finding: Finding, *, checked_at: datetime | None) -> None:
    """What a probe found, unless a person has signed meanwhile. `probed` keeps it when somebody signs later."""
    check.upgrade = upgrade
    write_row(
        check,
        status=finding.status,
        actor=None,
        detail=finding.detail,
        evidence={**finding.evidence, "probed": finding.status},
        checked_at=checked_at,
    )


def end(claim: Claim[ValidationRun], checks: dict[MatrixRow, UpgradeCheck], why: str | None) -> None:
    """Nothing is probed any more: what failed has failed, what is not known waits for a person.

    `why`: in what way there is nothing left to watch; None when the time is over.
    """
    minutes = duration(settings.UPGRADE_VALIDATION_SECONDS)
    with transaction.atomic():
        upgrade = Upgrade.objects.locked(claim.row.upgrade_id)
        monitoring = checks.get(MatrixRow.MONITORING)
        if monitoring is not None and is_open(claim.row, monitoring):
            failed = not why and disturbances_so_far(claim.row, monitoring) > 0
            detail = why or f"{monitoring.detail} Not steady for long enough within {minutes}."
            finding = Finding(CheckStatus.FAIL if failed else CheckStatus.UNKNOWN, detail, monitoring.evidence)
            put(upgrade, monitoring, finding, checked_at=claim.now)
        claim.write(is_done=True, next_check_at=None, lease_until=None)
        still_open = [row.label for row, check in checks.items() if check.status != CheckStatus.PASS]
        if still_open:
            tell(upgrade, EventKind.VALIDATED, f"{why or f'Probed for {minutes}.'} Open: {', '.join(still_open)}.")
        settle(upgrade, actor=None)


# --- what no run does -------------------------------------------------------------------------------------------------


def open_missing() -> None:
    """Give a matrix to what ended without one: while the portal upgrades itself, the release before may end some."""
    lately = Upgrade.objects.filter(
        completed_at__gt=Now() - timedelta(days=1), rollouts__outcome=Outcome.COMPLETED, validation_run__isnull=True
    )
    for pk in lately.values_list("pk", flat=True).distinct()[:ROWS_A_SWEEP]:
        with transaction.atomic():
            upgrade = Upgrade.objects.locked(pk)
            open_matrix(upgrade)
            settle(upgrade, actor=None)


def remind() -> None:
    """Tell people, once, of each upgrade that is not validated settings.UPGRADE_VALIDATION_REMINDER_SECONDS after its end.

    Not of one that a later upgrade rolled over: nobody can validate it any more.
    """
    reminded_after = timedelta(seconds=settings.UPGRADE_VALIDATION_REMINDER_SECONDS)
    late = ValidationRun.objects.filter(
        reminded_at__isnull=True,
        ends_at__gt=Now() - reminded_after - timedelta(days=1),
        upgrade__validation=Validation.NEEDED,
        upgrade__completed_at__lt=Now() - reminded_after,
        organization__is_active=True,
    )
    for run in late.select_related("upgrade__organization").order_by("pk")[:ROWS_A_SWEEP]:
        with transaction.atomic():
            # The guard and the mark are one statement: of several schedulers one tells.
            if not ValidationRun.objects.filter(pk=run.pk, reminded_at__isnull=True).update(reminded_at=Now()):
                continue
            if find_successor(run.upgrade, completed_of(run.upgrade)) is None:
                open_rows = [check.label for check in rows_of(run.upgrade) if check.status != CheckStatus.PASS]
                announce_validation_missing(run.upgrade, open_rows)


def completed_of(upgrade: Upgrade) -> list[Rollout]:
    return list(Rollout.objects.filter(upgrade=upgrade, outcome=Outcome.COMPLETED).order_by("position"))
