"""The portal's own validation of an upgrade, in the background: probes of the platform, and observations of ECS.

Each upgrade has one run (ValidationRun), claimed under a lease like a rollout. A step repeats, concurrently, all checks
that have not passed yet, and writes the results. The run ends when everything has passed or been signed, when its time is
over, or when a later upgrade rolls out the same services. Rows that a person signed are neither probed nor written.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet, Subquery
from django.db.models.functions import Now

from portal import leases
from portal.database.statements import Given
from portal.leases import Lease, run_guarded
from portal.models import Organization
from portal.request_id import carrying, request_pool
from portal.templatetags.formatting import duration
from portal.tenancy import all_organizations, organizations
from upgrades.checks.draining import describe_draining, record_draining
from upgrades.checks.matrix import NOT_YET, get_matrix_rows, open_matrix, update_validation, write_row
from upgrades.checks.probes import (
    BROKEN,
    Choice,
    Finding,
    choose_provider,
    get_result,
    probe_agent,
    probe_connector_path,
    probe_orchestrator,
    probe_portal_health,
    probe_portal_views,
    probe_provider_path,
    probe_sign_in,
)
from upgrades.checks.steadiness import (
    OBSERVE_SECONDS,
    Observation,
    count_disturbances,
    judge_observation,
    observe_services,
)
from upgrades.events import record_event
from upgrades.models import Rollout, Upgrade, UpgradeCheck, ValidationRun, is_known_in_ecs
from upgrades.notifications import notify_validation_missing
from upgrades.states import (
    AUTOMATIC,
    ROLLED_OUT,
    CheckStatus,
    EventKind,
    MatrixRow,
    PlatformService,
    Stage,
    Validation,
)

# The time between steps once the services have proven steady.
LATER_SECONDS = 60
# The lease is renewed while probes run (a path through a provider takes up to 30 s).
RENEW_SECONDS = 5
ROWS_PER_SWEEP = 50

PROBES: dict[MatrixRow, tuple[Callable[[Organization], Finding], ...]] = {
    MatrixRow.SIGN_IN_PAGE: (probe_sign_in,),
    MatrixRow.PLATFORM_HEALTH: (probe_agent, probe_orchestrator, probe_portal_health),
    MatrixRow.CONNECTOR_PATH: (probe_connector_path,),
    MatrixRow.PORTAL_VIEWS: (probe_portal_views,),
}
PROBED = {*PROBES, MatrixRow.PROVIDER_PATH}
# A completion costs money, so failed tries are repeated after these seconds, and then no more.
PROVIDER_RETRY_SECONDS = [60, 120, 240, 480]


def validate(run_id: int) -> bool:
    """Make the next step of the run, if it is due and no other worker holds it.

    Safe to call at any time, from any process.
    *Returns* whether a step was made.
    *Costs* at most one AWS call and eight probes.
    """
    lease = claim_run(run_id)
    if lease is None:
        return False
    # A step that crashes is retried until the run's time is over. The rows are then left for people to sign.
    with organizations(lease.row.organization_id), carrying(lease.row.upgrade.request_id), leases.kept(lease):
        run_guarded(
            f"validation run {run_id}", lambda: step(lease), record_crash=lambda: lease.release(seconds=LATER_SECONDS)
        )
    return True


def claim_run(run_id: int) -> Lease[ValidationRun] | None:
    organization_id = leases.find_organization("upgrades_validation_organization", run_id)
    if organization_id is None:
        return None
    with organizations(organization_id):
        return next(iter(DUE_RUN.take(id=run_id)), None)


def find_due_run() -> "QuerySet[ValidationRun]":
    rows = ValidationRun.unfinished().filter(leases.due(), pk=Given("id"))
    return rows.select_related("organization", "upgrade__organization")


DUE_RUN = leases.Claim(find_due_run)


def step(lease: Lease[ValidationRun]) -> None:
    """Make one step of the run.

    1. Find what is still open. 2. Probe and observe, outside a transaction. 3. Write, and end the run if nothing is left.
    """
    run = lease.row
    checks = {
        MatrixRow(check.name): check
        for check in UpgradeCheck.objects.filter(upgrade=run.upgrade, stage=Stage.VALIDATION)
    }
    open_rows = [row for row in MatrixRow if row in checks and is_open(run, checks[row])]
    completed = get_completed_rollouts(run.upgrade)
    successor = find_successor(run.upgrade, completed)
    if successor:
        return finish_run(lease, checks, describe_successor(successor))
    if not run.organization.is_active:
        return finish_run(lease, checks, f"{run.organization.name} was suspended, so its checks have stopped.")
    if lease.now >= run.ends_at:
        return finish_run(lease, checks, None)
    findings = probe_rows(lease, [row for row in open_rows if row in PROBED and is_due(lease, checks[row])], checks)
    observation = observe_services(lease, completed) if MatrixRow.MONITORING in open_rows else None
    note = describe_mixture(completed, observation)
    findings = {row: replace(finding, detail=f"{finding.detail}{note}") for row, finding in findings.items()}
    write(lease, checks, findings, observation, completed)


def describe_mixture(completed: list[Rollout], observation: Observation | None) -> str:
    """Return what a probe's finding must add while old tasks drain, because one of them may have answered."""
    counts = {rollout.pk: rollout.source_running for rollout in completed}
    if observation is not None:
        counts |= {pk: counted.old_tasks if counted else 0 for pk, counted in observation.draining.items()}
    old_tasks = sum(counts.values())
    return f" Meanwhile {describe_draining(old_tasks)}: an old one may have answered." if old_tasks else ""


def is_open(run: ValidationRun, check: UpgradeCheck) -> bool:
    """Return whether the portal still has to check the row. Findings from before the run (re)started do not count."""
    if check.name not in AUTOMATIC or check.checked_by_id is not None:
        return False
    return check.status != CheckStatus.PASS or not run.found(check)


def is_due(lease: Lease[ValidationRun], check: UpgradeCheck) -> bool:
    """Return whether the row may be probed now. Only the check that costs money has to wait."""
    tries = count_tries(lease.row, check) if check.name == MatrixRow.PROVIDER_PATH else 0
    if tries == 0:
        return True
    if tries > len(PROVIDER_RETRY_SECONDS) or check.checked_at is None:
        return False
    return lease.now >= check.checked_at + timedelta(seconds=PROVIDER_RETRY_SECONDS[tries - 1])


def count_tries(run: ValidationRun, check: UpgradeCheck) -> int:
    """Return how many completions this run has requested."""
    return int(check.evidence.get("tries", 0)) if run.found(check) else 0


def find_successor(upgrade: Upgrade, completed: list[Rollout]) -> Rollout | None:
    """Return the rollout of a later upgrade that changed a service which this one completed. *Costs* one query."""
    services = [rollout.service for rollout in completed]
    later = Rollout.objects.filter(
        is_known_in_ecs(),
        organization=upgrade.organization_id,
        service__in=services,
        upgrade_id__gt=upgrade.pk,
    )
    return later.select_related("upgrade").order_by("upgrade_id", "position").first()


def describe_successor(successor: Rollout) -> str:
    label = PlatformService(successor.service).label
    return f"{label} was rolled out again by {successor.upgrade.upgrade_id}. What this upgrade left no longer runs."


# --- probes ---------------------------------------------------------------------------------------------------------


def probe_rows(
    lease: Lease[ValidationRun], rows: list[MatrixRow], checks: dict[MatrixRow, UpgradeCheck]
) -> dict[MatrixRow, Finding]:
    """Run the probes for these rows concurrently, renewing the lease while waiting.

    The threads make no queries.
    """
    if not rows:
        return {}
    organization = lease.row.organization
    with request_pool(8, "probes") as pool:
        asked = {row: [pool.submit(probe, organization) for probe in PROBES[row]] for row in rows if row in PROBES}
        found = {}
        if MatrixRow.PROVIDER_PATH in rows:
            found[MatrixRow.PROVIDER_PATH] = probe_provider(lease, pool, checks[MatrixRow.PROVIDER_PATH])
        wait_and_renew(lease, {future for futures in asked.values() for future in futures})
    answers = {row: [get_result(each, BROKEN) for each in futures] for row, futures in asked.items()}
    return found | {row: combine(findings) for row, findings in answers.items()}


def probe_provider(lease: Lease[ValidationRun], pool: ThreadPoolExecutor, check: UpgradeCheck) -> Finding:
    """Choose a provider, count the try, and have it complete a prompt. Without a provider, no try is counted."""
    organization, tries = lease.row.organization, count_tries(lease.row, check)
    choosing = pool.submit(choose_provider, organization)
    wait_and_renew(lease, {choosing})
    chosen = get_result(choosing, Choice(None, BROKEN))
    if chosen.name is None:
        return chosen.otherwise.with_evidence(tries=tries)
    count_try(lease, check, tries + 1)
    completing = pool.submit(probe_provider_path, organization, chosen.name)
    wait_and_renew(lease, {completing})
    return get_result(completing, BROKEN).with_evidence(tries=tries + 1)


def wait_and_renew(lease: Lease[ValidationRun], futures: set[Future[Any]]) -> None:
    """Wait for the probes to end, renewing the lease meanwhile."""
    while futures:
        futures = wait(futures, timeout=RENEW_SECONDS).not_done
        lease.renew()


def count_try(lease: Lease[ValidationRun], check: UpgradeCheck, tries: int) -> None:
    """Count a try, committed before the call so that it counts even if the worker dies during the call.

    The time of the try makes the row part of this run, so the same statement clears the result of an earlier run.
    """
    fields = {"evidence": {**check.evidence, "tries": tries}, "checked_at": lease.now}
    if not lease.row.found(check):
        fields |= {"status": CheckStatus.UNKNOWN, "detail": NOT_YET, "evidence": {"tries": tries}}
    with transaction.atomic():
        lease.renew()
        UpgradeCheck.objects.filter(pk=check.pk, checked_by__isnull=True).update(**fields)


def combine(findings: list[Finding]) -> Finding:
    """Return the worst of the findings, with the details of all."""
    if len(findings) == 1:
        return findings[0]
    statuses = {finding.status for finding in findings}
    worst = next(each for each in (CheckStatus.FAIL, CheckStatus.UNKNOWN, CheckStatus.PASS) if each in statuses)
    detail = " ".join(finding.detail for finding in findings)
    return Finding(worst, detail, {"asked": [finding.evidence for finding in findings]})


# --- writing ----------------------------------------------------------------------------------------------------------


def write(
    lease: Lease[ValidationRun],
    checks: dict[MatrixRow, UpgradeCheck],
    findings: dict[MatrixRow, Finding],
    observation: Observation | None,
    completed: list[Rollout],
) -> None:
    """Write the results in one transaction, under the upgrade's lock and guarded by the lease."""
    with transaction.atomic():
        upgrade = Upgrade.objects.locked(lease.row.upgrade_id)
        monitoring = checks.get(MatrixRow.MONITORING)
        since = lease.row.steady_since
        if observation is not None and monitoring is not None:
            since, finding = judge_observation(lease, monitoring, observation)
            record_finding(
                upgrade, monitoring, finding, checked_at=monitoring.checked_at if observation.error else lease.now
            )
        for rollout in completed:
            if observation is not None and rollout.pk in observation.draining:
                record_draining(rollout, observation.draining[rollout.pk])
        for row, finding in findings.items():
            record_finding(upgrade, checks[row], finding, checked_at=lease.now)
        left = [row for row, check in checks.items() if is_open(lease.row, check)]
        if left:
            is_waiting = observation is not None and observation.wait is not None
            seconds = OBSERVE_SECONDS if MatrixRow.MONITORING in left and not is_waiting else LATER_SECONDS
            lease.release(seconds=seconds, steady_since=since)
        else:
            lease.write(steady_since=since, is_done=True, next_check_at=None, lease_until=None)
        update_validation(upgrade, actor=None)


def record_finding(upgrade: Upgrade, check: UpgradeCheck, finding: Finding, *, checked_at: datetime | None) -> None:
    """Write what a probe found, unless a person has signed meanwhile. `probed` keeps the result if one signs later."""
    check.upgrade = upgrade
    write_row(
        check,
        status=finding.status,
        actor=None,
        detail=finding.detail,
        evidence={**finding.evidence, "probed": finding.status},
        checked_at=checked_at,
    )


def finish_run(lease: Lease[ValidationRun], checks: dict[MatrixRow, UpgradeCheck], why: str | None) -> None:
    """End the run: failures become final, and unknown rows wait for a person.

    `why`: the reason why there is nothing left to check; None if the time is over.
    """
    minutes = duration(settings.UPGRADE_VALIDATION_SECONDS)
    with transaction.atomic():
        upgrade = Upgrade.objects.locked(lease.row.upgrade_id)
        monitoring = checks.get(MatrixRow.MONITORING)
        if monitoring is not None and is_open(lease.row, monitoring):
            failed = not why and count_disturbances(lease.row, monitoring) > 0
            detail = why or f"{monitoring.detail} Not steady long enough within {minutes}."
            finding = Finding(CheckStatus.FAIL if failed else CheckStatus.UNKNOWN, detail, monitoring.evidence)
            record_finding(upgrade, monitoring, finding, checked_at=lease.now)
        lease.write(is_done=True, next_check_at=None, lease_until=None)
        still_open = [row.label for row, check in checks.items() if check.status != CheckStatus.PASS]
        if still_open:
            record_event(
                upgrade, EventKind.VALIDATED, f"{why or f'Checked for {minutes}.'} Open: {', '.join(still_open)}."
            )
        update_validation(upgrade, actor=None)


# --- sweeps -----------------------------------------------------------------------------------------------------------


def open_missing_matrices() -> None:
    """Create the matrix of upgrades that ended without one: during a self-upgrade, the previous release may end some.

    A run ends after its upgrade has. So the runs of the last day's upgrades are found by their end, not among all.
    """
    since = Now() - timedelta(days=1)
    completed = Rollout.objects.filter(upgrade=OuterRef("pk"), outcome__in=ROLLED_OUT)
    runs = ValidationRun.objects.filter(upgrade=OuterRef("pk"), ends_at__gt=since)
    lately = Upgrade.objects.filter(Exists(completed), ~Exists(runs), completed_at__gt=since)
    with all_organizations("the sweep looks for work everywhere"):
        found = list(lately.values_list("pk", "organization_id")[:ROWS_PER_SWEEP])
    for pk, organization_id in found:
        with organizations(organization_id), transaction.atomic():
            upgrade = Upgrade.objects.locked(pk)
            open_matrix(upgrade)
            update_validation(upgrade, actor=None)


def send_reminders() -> None:
    """Notify people, once, of each upgrade not validated settings.UPGRADE_VALIDATION_REMINDER_SECONDS after its end.

    If a later upgrade has replaced what it left, there is no reminder, because it can no longer be validated.
    """
    reminded_after = timedelta(seconds=settings.UPGRADE_VALIDATION_REMINDER_SECONDS)
    # A subquery of one value is read for each run of the last day. A join would read all upgrades ever left unvalidated.
    ended = Upgrade.objects.filter(pk=OuterRef("upgrade"), completed_at__lt=Now() - reminded_after)
    late = ValidationRun.objects.alias(validation=Subquery(ended.values("validation")[:1])).filter(
        reminded_at__isnull=True,
        ends_at__gt=Now() - reminded_after - timedelta(days=1),
        validation=Validation.NEEDED,
        organization__is_active=True,
    )
    with all_organizations("the sweep looks for work everywhere"):
        pks = list(late.order_by("ends_at").values_list("pk", flat=True)[:ROWS_PER_SWEEP])
        runs = ValidationRun.objects.filter(pk__in=pks).select_related("upgrade__organization").order_by("pk")
        found = list(runs) if pks else []
    for run in found:
        with organizations(run.organization_id), transaction.atomic():
            # Guard and mark are one statement, so that only one of several schedulers notifies.
            if not ValidationRun.objects.filter(pk=run.pk, reminded_at__isnull=True).update(reminded_at=Now()):
                continue
            if find_successor(run.upgrade, get_completed_rollouts(run.upgrade)) is None:
                open_rows = [check.label for check in get_matrix_rows(run.upgrade) if check.status != CheckStatus.PASS]
                notify_validation_missing(run.upgrade, open_rows)


def get_completed_rollouts(upgrade: Upgrade) -> list[Rollout]:
    rollouts = Rollout.objects.filter(upgrade=upgrade, outcome__in=ROLLED_OUT).select_related("upgrade")
    return list(rollouts.order_by("position"))
