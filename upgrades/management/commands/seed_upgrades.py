"""Past upgrades of acme for the demo, with different outcomes, so that the history and the estimates have data."""

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from portal.models import Organization, User
from portal.tenancy import all_organizations
from portal.times import utc
from upgrades.checks.matrix import build_blank_rows
from upgrades.inventory.ecs_services import service_name
from upgrades.models import Rollout, Upgrade, UpgradeEvent, ValidationRun
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
VERSIONS = {"agent": "v9.9.0", "orchestrator": "v9.9.0", "customer-portal": "v9.8.2"}
DESIRED = {"agent": 4, "orchestrator": 3, "customer-portal": 2}

# Hours ago, target, who, reason, then (outcome, seconds) for each service in rolling order.
PAST: list[tuple[int, str, str, str, list[tuple[Outcome, int]]]] = [
    (26, "agent", "operator", "OPS-412: connector time-outs", [(Outcome.COMPLETED, 71)]),
    (
        49,
        "all",
        "admin",
        "OPS-405: v9.9.0 for everyone",
        [(Outcome.COMPLETED, 78), (Outcome.COMPLETED, 64), (Outcome.COMPLETED, 52)],
    ),
    (74, "orchestrator", "operator", "OPS-398: provider routing", [(Outcome.ROLLED_BACK, 143)]),
    (98, "all", "operator", "", [(Outcome.COMPLETED, 80), (Outcome.ROLLED_BACK, 151), (Outcome.NOT_ATTEMPTED, 0)]),
    (150, "customer-portal", "admin", "OPS-377", [(Outcome.STOPPED_BY_USER, 33)]),
    (170, "agent", "consultant", "", [(Outcome.SUPERSEDED, 41)]),
    (222, "agent", "operator", "OPS-350", [(Outcome.NO_CHANGE, 1)]),
    (270, "orchestrator", "operator", "", [(Outcome.TIMED_OUT, 2700)]),
]
# Signed validations of upgrades that completed a service, by hours ago: the signer, and each failed row with its note.
VALIDATED: dict[int, tuple[str, dict[MatrixRow, str]]] = {
    26: ("operator", {}),
    98: ("admin", {MatrixRow.LICENCE_USAGE: "Usage stays empty since the upgrade: OPS-391."}),
}
FOUND = "Answered correctly 8 min after the rollout."
STATUS = {
    Outcome.COMPLETED: Status.SUCCESS,
    Outcome.NO_CHANGE: Status.SUCCESS,
}
REASON = {
    Outcome.ROLLED_BACK: BREAKER,
    Outcome.STOPPED_BY_USER: "Stopped by admin@acme.example.",
    Outcome.SUPERSEDED: "Replaced by a deployment that was started outside the portal.",
    Outcome.TIMED_OUT: "Not finished within 45 minutes. Last state: ECS still reports it in progress.",
    Outcome.NO_CHANGE: "It already ran this image and no new deployment was forced, so there was nothing to change.",
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
        for number, (hours, target, who, reason, ends) in enumerate(PAST):
            self.make_upgrade(acme, number, hours, target, who, reason, ends)

    def make_upgrade(
        self,
        acme: Organization,
        number: int,
        hours: int,
        target: str,
        who: str,
        reason: str,
        ends: list[tuple[Outcome, int]],
    ) -> None:
        began = timezone.now() - timedelta(hours=hours)
        email = "consultant@portal.example" if who == "consultant" else f"{who}@acme.example"
        statuses = [STATUS.get(outcome, Status.FAILED) for outcome, _ in ends]
        ended = began + timedelta(seconds=sum(seconds for _, seconds in ends))
        upgrade = Upgrade.objects.create(
            upgrade_id=f"upgrade-{began:%Y-%m%d-%H%M%S}-{number:06x}",
            organization=acme,
            target=target,
            version="latest",
            force_new_deployment=ends[0][0] != Outcome.NO_CHANGE,
            reason=reason,
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
        for position, (service, (outcome, seconds)) in enumerate(zip(get_services(target), ends, strict=True)):
            self.make_rollout(upgrade, position, service, outcome, at, seconds)
            at += timedelta(seconds=seconds)
        if upgrade.has_advanced:
            self.make_validation(upgrade, *VALIDATED.get(hours, ("", None)), at=ended + timedelta(minutes=8))
        self.make_timeline(upgrade)

    def make_rollout(
        self, upgrade: Upgrade, position: int, service: str, outcome: Outcome, at: datetime, seconds: int
    ) -> None:
        succeeded = outcome in STATUS
        attempted = outcome != Outcome.NOT_ATTEMPTED
        rolled_back = outcome == Outcome.ROLLED_BACK
        reason = REASON.get(outcome)
        error = None if succeeded else f"{outcome.label}. {reason or 'An earlier service failed.'}"
        desired = DESIRED[service] if attempted else None
        ended = at + timedelta(seconds=seconds)
        rollout = Rollout.objects.create(
            upgrade=upgrade,
            organization=upgrade.organization,
            service=service,
            service_name=service_name(upgrade.organization, service),
            position=position,
            status=STATUS.get(outcome, Status.FAILED),
            outcome=outcome,
            phase=Phase.DONE,
            from_version=VERSIONS[service] if attempted else None,
            to_version=VERSIONS[service] if attempted else None,
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

    def make_validation(self, upgrade: Upgrade, who: str, failed: dict[MatrixRow, str] | None, *, at: datetime) -> None:
        """Create the validation matrix of an upgrade.

        `failed` None: the portal has run its own checks, and the other rows are not signed.
        """
        signer = User.objects.get(email=f"{who}@acme.example") if who else None
        for check in build_blank_rows(upgrade):
            row = MatrixRow(check.name)
            if row in AUTOMATIC:
                check.status, check.detail, check.evidence = CheckStatus.PASS, FOUND, {"probed": CheckStatus.PASS}
                check.checked_at = at
            if failed is not None and (row not in AUTOMATIC or row in failed):
                check.status = CheckStatus.FAIL if row in failed else CheckStatus.PASS
                check.checked_by, check.checked_by_email = signer, signer.email if signer else ""
                check.note, check.checked_at = failed.get(row, ""), at
            check.save()
        ValidationRun.objects.create(
            organization=upgrade.organization, upgrade=upgrade, ends_at=at, reminded_at=at, is_done=True
        )
        results = [CheckResult(CheckStatus(check.status), check.is_signed) for check in upgrade.checks.all()]
        Upgrade.objects.filter(pk=upgrade.pk).update(validation=judge_validation(results, is_probing=False))

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
