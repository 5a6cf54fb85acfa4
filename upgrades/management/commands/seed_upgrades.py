"""Past upgrades of acme for the demo: how it came from v9.8.1 to v9.9.0, with what the portal would have recorded."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from portal.management.past import record_past
from portal.models import AuditKind, Organization, User
from portal.tenancy import all_organizations
from portal.times import utc
from upgrades.checks.matrix import build_blank_rows
from upgrades.inventory.ecs_services import service_name
from upgrades.models import Kind, Rollout, Upgrade, UpgradeEvent, ValidationRun
from upgrades.states import (
    AUTOMATIC,
    CheckResult,
    CheckStatus,
    EventKind,
    MatrixRow,
    Outcome,
    Phase,
    Status,
    get_services,
    judge_validation,
    overall_status,
)

BREAKER = "Service deployment rolled back because the circuit breaker threshold was exceeded."
CRASH = "Essential container in task exited"
DESIRED = {"agent": 4, "orchestrator": 3, "customer-portal": 2}


@dataclass(frozen=True)
class Step:
    """The rollout of one service: how it ended, after how many seconds, and from which version to which."""

    outcome: Outcome
    seconds: int
    before: str
    after: str


@dataclass(frozen=True)
class Past:
    """One past upgrade. `steps`: in rolling order. `signer` signed the validation; `failed`: its failed rows, with notes.

    `undoes`: it is the rollback of the upgrade that many places before it.
    """

    hours_ago: float
    target: str
    version: str
    who: str
    reason: str
    steps: tuple[Step, ...]
    signer: str = ""
    failed: dict[MatrixRow, str] = field(default_factory=dict)
    undoes: int = 0


# How acme came to v9.9.0: the orchestrator lacked a setting, and the customer portal went back. Oldest first.
PAST = [
    Past(
        290,
        "all",
        "v9.8.2",
        "admin",
        "OPS-371: November release",
        (
            Step(Outcome.COMPLETED, 78, "v9.8.1", "v9.8.2"),
            Step(Outcome.COMPLETED, 64, "v9.8.1", "v9.8.2"),
            Step(Outcome.COMPLETED, 52, "v9.8.0", "v9.8.2"),
        ),
        signer="operator",
    ),
    Past(
        222,
        "agent",
        "v9.8.3",
        "operator",
        "OPS-377: connectors time out, fixed in v9.8.3",
        (Step(Outcome.COMPLETED, 71, "v9.8.2", "v9.8.3"),),
        signer="operator",
    ),
    Past(
        170,
        "customer-portal",
        "v9.8.3",
        "consultant",
        "OPS-380: new sign-in page",
        (Step(Outcome.STOPPED_BY_USER, 33, "v9.8.2", "v9.8.3"),),
    ),
    Past(
        50,
        "all",
        "v9.9.0",
        "operator",
        "OPS-391: v9.9.0 for everyone",
        (
            Step(Outcome.COMPLETED, 80, "v9.8.3", "v9.9.0"),
            Step(Outcome.ROLLED_BACK, 151, "v9.8.2", "v9.9.0"),
            Step(Outcome.NOT_ATTEMPTED, 0, "v9.8.2", "v9.9.0"),
        ),
        signer="operator",
    ),
    Past(
        48.5,
        "orchestrator",
        "v9.9.0",
        "operator",
        "OPS-391: MODEL_ID was missing and is set now",
        (Step(Outcome.COMPLETED, 66, "v9.8.2", "v9.9.0"),),
        signer="operator",
    ),
    Past(
        27,
        "customer-portal",
        "v9.9.0",
        "admin",
        "OPS-391: the last of the three",
        (Step(Outcome.COMPLETED, 54, "v9.8.2", "v9.9.0"),),
        signer="admin",
        failed={MatrixRow.LICENCE_USAGE: "Usage stays empty since the upgrade: OPS-401."},
    ),
    Past(
        26,
        "customer-portal",
        "v9.9.0",
        "admin",
        "OPS-401: usage stays empty with v9.9.0",
        (Step(Outcome.COMPLETED, 49, "v9.9.0", "v9.8.2"),),
        undoes=1,
    ),
]
FOUND = "Answered correctly 8 min after the rollout."
STATUS = {
    Outcome.COMPLETED: Status.SUCCESS,
    Outcome.NO_CHANGE: Status.SUCCESS,
}
REASON = {
    Outcome.ROLLED_BACK: BREAKER,
    Outcome.STOPPED_BY_USER: "Stopped by admin@acme.example.",
}


class Command(BaseCommand):
    help = "Create past upgrades of acme. Does nothing if acme has any. Needs DEMO=1 and seed_organizations."

    @all_organizations("the demo has several")
    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEMO:
            raise CommandError("This command writes made-up history and needs DEMO=1.")
        acme = Organization.objects.filter(slug="acme").first()
        if acme is None:
            raise CommandError("There is no organization acme. Run seed_organizations first.")
        if Upgrade.objects.filter(organization=acme).exists():
            return
        made: list[Upgrade] = []
        for past in PAST:
            made.append(self.make_upgrade(acme, len(made), past, made[-past.undoes] if past.undoes else None))

    def make_upgrade(self, acme: Organization, number: int, past: Past, undone: Upgrade | None) -> Upgrade:
        began = timezone.now() - timedelta(hours=past.hours_ago)
        email = "consultant@portal.example" if past.who == "consultant" else f"{past.who}@acme.example"
        statuses = [STATUS.get(step.outcome, Status.FAILED) for step in past.steps]
        ended = began + timedelta(seconds=sum(step.seconds for step in past.steps))
        upgrade = Upgrade.objects.create(
            upgrade_id=f"upgrade-{began:%Y-%m%d-%H%M%S}-{number:06x}",
            organization=acme,
            kind=Kind.ROLLBACK if undone else Kind.UPGRADE,
            rolls_back=undone,
            target=past.target,
            version=past.version,
            force_new_deployment=False,
            reason=past.reason,
            status=overall_status(statuses),
            initiated_by=User.objects.get(email=email),
            initiated_by_email=email,
            cluster=acme.cluster or "",
            region=acme.deployment_region,
            role_arn=acme.deployment_role_arn,
            success_count=statuses.count(Status.SUCCESS),
            failed_count=statuses.count(Status.FAILED),
            created_at=began,
            started_at=began,
            completed_at=ended,
        )
        at = began
        for position, (service, step) in enumerate(zip(get_services(past.target), past.steps, strict=True)):
            self.make_rollout(upgrade, position, service, step, at)
            at += timedelta(seconds=step.seconds)
        if upgrade.has_advanced:
            self.make_validation(upgrade, past, at=ended + timedelta(minutes=8))
        self.make_timeline(upgrade)
        self.make_activity(upgrade)
        return upgrade

    def make_rollout(self, upgrade: Upgrade, position: int, service: str, step: Step, at: datetime) -> None:
        outcome = step.outcome
        succeeded = outcome in STATUS
        attempted = outcome != Outcome.NOT_ATTEMPTED
        rolled_back = outcome == Outcome.ROLLED_BACK
        reason = REASON.get(outcome)
        error = None if succeeded else f"{outcome.label}. {reason or 'An earlier service failed.'}"
        desired = DESIRED[service] if attempted else None
        ended = at + timedelta(seconds=step.seconds)
        rollout = Rollout.objects.create(
            upgrade=upgrade,
            organization=upgrade.organization,
            service=service,
            service_name=service_name(upgrade.organization, service),
            position=position,
            status=STATUS.get(outcome, Status.FAILED),
            outcome=outcome,
            phase=Phase.DONE,
            from_version=step.before if attempted else None,
            to_version=step.after if attempted else None,
            desired_count=desired,
            running_count=desired,
            pending_count=0 if attempted else None,
            failed_tasks=3 if rolled_back else 0,
            target_running=desired or 0 if outcome == Outcome.COMPLETED else 0,
            source_running=0 if outcome == Outcome.COMPLETED else desired or 0,
            breaker_failures=3 if rolled_back else 0,
            breaker_threshold=3 if attempted else 0,
            rollout_reason=reason,
            error_message=error,
            stopped_tasks=[{"id": f"{position:032x}", "stopped_at": utc(at), "reason": CRASH, "exit_code": 1}]
            * rolled_back,
            started_at=at if attempted else None,
            completed_at=ended,
            last_checked_at=ended if attempted else None,
        )
        if outcome == Outcome.COMPLETED:
            UpgradeEvent.objects.create(
                organization=upgrade.organization,
                rollout=rollout,
                ecs_event_id=f"seed-{rollout.pk}",
                message=f"(service {rollout.service_name}) has reached a steady state.",
                created_at=ended,
            )

    def make_validation(self, upgrade: Upgrade, past: Past, *, at: datetime) -> None:
        """Create the validation matrix of an upgrade.

        Without a signer the portal has run its own checks, and the other rows are not signed.
        """
        signer = User.objects.get(email=f"{past.signer}@acme.example") if past.signer else None
        for check in build_blank_rows(upgrade):
            row = MatrixRow(check.name)
            if row in AUTOMATIC:
                check.status, check.detail, check.evidence = CheckStatus.PASS, FOUND, {"probed": CheckStatus.PASS}
                check.checked_at = at
            if signer and (row not in AUTOMATIC or row in past.failed):
                check.status = CheckStatus.FAIL if row in past.failed else CheckStatus.PASS
                check.checked_by, check.checked_by_email = signer, signer.email
                check.note, check.checked_at = past.failed.get(row, ""), at
            check.save()
        ValidationRun.objects.create(
            organization=upgrade.organization, upgrade=upgrade, ends_at=at, reminded_at=at, is_done=True
        )
        results = [CheckResult(CheckStatus(check.status), check.is_signed) for check in upgrade.checks.all()]
        upgrade.validation = judge_validation(results, is_probing=False)
        upgrade.save(update_fields=["validation"])

    def make_timeline(self, upgrade: Upgrade) -> None:
        """Create the timeline entries that the portal would have written, at the times of the rows."""
        reason = f" {upgrade.reason}" if upgrade.reason else ""
        asked = f"{upgrade.target} to {upgrade.version}.{reason}"
        events: list[tuple[datetime, EventKind, Rollout | None, str, str]] = [
            (upgrade.created_at, EventKind.TRIGGERED, None, asked, upgrade.initiated_by_email)
        ]
        for rollout in upgrade.rollouts.all():
            if rollout.started_at:
                events.append((rollout.started_at, EventKind.ROLLOUT_STARTED, rollout, "Deployment started.", ""))
            if rollout.completed_at:
                outcome = Outcome(rollout.outcome).label if rollout.outcome else ""
                said = f"{Status(rollout.status).label}: {rollout.error_message or f'{outcome}.'}"
                events.append((rollout.completed_at, EventKind.ROLLOUT_ENDED, rollout, said, ""))
        if upgrade.completed_at:
            events.append((upgrade.completed_at, EventKind.ENDED, None, upgrade.message, ""))
        for check in upgrade.checks.all():
            if check.is_signed and check.checked_at:
                said = f"{check.label}: {CheckStatus(check.status).label.lower()}. {check.note}".strip()
                events.append((check.checked_at, EventKind.CHECK_RECORDED, None, said, check.checked_by_email))
        for at, kind, of, message, actor in events:
            UpgradeEvent.objects.create(
                organization=upgrade.organization,
                upgrade=upgrade,
                rollout=of,
                kind=kind,
                message=message,
                actor_email=actor,
                created_at=at,
            )

    def make_activity(self, upgrade: Upgrade) -> None:
        """Create the audit rows that the portal would have written, at the times of the rows."""
        subject, acme = upgrade.upgrade_id, upgrade.organization
        kind = AuditKind.UPGRADE_ROLLBACK_TRIGGERED if upgrade.is_rollback else AuditKind.UPGRADE_TRIGGERED
        asked = {"service": upgrade.target, "version": upgrade.version, "reason": upgrade.reason}
        record_past(kind, acme, upgrade.initiated_by, subject, at=upgrade.created_at, data=asked)
        ended = upgrade.completed_at or upgrade.created_at
        if any(rollout.outcome == Outcome.STOPPED_BY_USER for rollout in upgrade.rollouts.all()):
            admin = User.objects.get(email="admin@acme.example")
            record_past(AuditKind.UPGRADE_STOP_REQUESTED, acme, admin, subject, at=ended - timedelta(seconds=8))
        result = {
            "status": upgrade.status,
            "success_count": upgrade.success_count,
            "failed_count": upgrade.failed_count,
        }
        record_past(AuditKind.UPGRADE_ENDED, acme, None, subject, at=ended, data=result)
        signed = [check for check in upgrade.checks.all() if check.is_signed and check.checked_at]
        for check in signed:
            found = {"check": check.name, "status": check.status, "note": check.note}
            at = check.checked_at or ended
            record_past(AuditKind.UPGRADE_CHECK_SIGNED, acme, check.checked_by, subject, at=at, data=found)
        if signed:
            at, actor = signed[-1].checked_at or ended, signed[-1].checked_by
            record_past(
                AuditKind.UPGRADE_VALIDATED, acme, actor, subject, at=at, data={"validation": upgrade.validation}
            )
