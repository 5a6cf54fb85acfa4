"""Models of upgrades: one row per request, one per service that it rolls, timeline entries, checks, validation runs."""

import uuid
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.db.models.functions import Lower, Now

from portal.aws.credentials import AwsTarget
from portal.database.identity import DatabaseIdentity
from portal.database.statements import Given
from portal.database.together import attach
from portal.leases import Leased, due
from portal.models import Organization, TenantQuerySet, User
from portal.models.reading import QuicklyRead
from portal.models.revisions import Revised
from portal.request_id import NO_REQUEST
from upgrades.states import (
    OPEN,
    ROLLED_OUT,
    TARGETS,
    UPGRADE_STATUSES,
    CheckStatus,
    DecisionAction,
    EventKind,
    MatrixRow,
    Outcome,
    Phase,
    PlatformService,
    PreflightCheck,
    Stage,
    Status,
    Validation,
    describe_errors,
    describe_upgrade,
)

MAX_HOOK_ID_LENGTH = 512
MAX_VERSION_LENGTH = 128  # the longest tag: https://docs.docker.com/reference/cli/docker/image/tag/
OPEN_ROLLOUT_CONSTRAINT = "one_open_rollout_per_service"
Row = TypeVar("Row")
EVENT_IDS = uuid.UUID("9f3f2f36-0a5c-5a41-9a3c-6f0d5a1b7c11")


# The columns that a row of a table of upgrades needs.
UPGRADE_IN_ROW = (
    *("upgrade_id", "organization", "kind", "target", "version", "force_new_deployment", "reason", "status"),
    *("validation", "initiated_by__name", "initiated_by_email", "success_count", "failed_count"),
    *("created_at", "completed_at"),
)
ROLLOUT_IN_ROW = (
    *("upgrade", "service", "status", "outcome", "phase", "position", "is_overdue", "is_stalled"),
    *("from_version", "to_version"),
)


class Kind(models.TextChoices):
    UPGRADE = "upgrade", "Upgrade"
    ROLLBACK = "rollback", "Rollback"


class UpgradeQuerySet(TenantQuerySet["Upgrade"]):
    def for_record(self) -> Self:
        """Load everything that the record shows. Costs two queries more, whatever the number of services."""
        return self.select_related("organization", "stop_requested_by").prefetch_related("rollouts")

    def for_rows(self) -> Self:
        """Load only what a row of a table shows (pages/results.py), instead of the record. `attach_rollouts` adds more."""
        found = self.select_related(None).select_related("initiated_by").prefetch_related(None)
        return found.only(*UPGRADE_IN_ROW)

    def newest_first(self) -> Self:
        return self.order_by("-created_at", "-id")

    def locked(self, pk: int) -> "Upgrade":
        """Lock the upgrade's row and return it with its organization.

        The lock serializes the engine, the validation and the signers.
        """
        return self.select_related("organization").select_for_update(of=("self",), no_key=True).get(pk=pk)

    def matching(
        self,
        *,
        status: Any = None,
        service: str | None = None,
        version: Any = None,
        initiated_by: Any = None,
        validation: Any = None,
    ) -> Self:
        """Apply the history's filters: values, or placeholders of a statement of the API. None does not filter.

        `service` finds upgrades that rolled that service, or for `all` those that were requested for all.
        """
        found = self
        if status:
            found = found.filter(status=status)
        if service == "all":
            found = found.filter(target="all")
        elif service:
            found = found.filter(rollouts__service=service)
        if version:
            found = found.filter(version=version)
        if initiated_by:
            address = initiated_by.lower() if isinstance(initiated_by, str) else initiated_by
            found = found.filter(initiated_by_lower=address)
        if validation:
            found = found.filter(validation=validation)
        return found

    def for_history(
        self,
        user: User | AnonymousUser,
        organization: Organization,
        *,
        status: str | None = None,
        service: str | None = None,
        version: str | None = None,
        initiated_by: str | None = None,
        validation: str | None = None,
    ) -> Self:
        """Return the organization's upgrades for API and page: filtered, in a total order, with what a row shows."""
        return (
            self.visible_to(user)
            .filter(organization=organization)
            .matching(status=status, service=service, version=version, initiated_by=initiated_by, validation=validation)
            .for_record()
            .newest_first()
        )


class Upgrade(Revised):
    """One recorded request to upgrade platform services. Once its row is committed it will be carried out."""

    upgrade_id = models.CharField(max_length=100, unique=True)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="upgrades")
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.UPGRADE)
    target = models.CharField(max_length=20, choices=[(target, target) for target in TARGETS])
    version = models.CharField(max_length=MAX_VERSION_LENGTH)
    force_new_deployment = models.BooleanField()
    reason = models.TextField(blank=True)
    status = models.CharField(max_length=20, choices=Status.choices, default=Status.PENDING)
    initiated_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    initiated_by_email = models.CharField(max_length=254)
    initiated_by_lower = models.GeneratedField(
        expression=Lower("initiated_by_email"), output_field=models.CharField(max_length=254), db_persist=True
    )
    success_count = models.IntegerField(default=0)
    failed_count = models.IntegerField(default=0)
    estimated_seconds = models.IntegerField(
        null=True, help_text="Estimated at the trigger from past rollouts. Null: there were none."
    )
    # The place at the trigger. A later change of the organization does not move the rollout to another place.
    cluster = models.CharField(max_length=255)
    region = models.CharField(max_length=50)
    role_arn = models.CharField(max_length=600, blank=True)
    # Columns added after the first release have a database default: while the portal upgrades itself, the previous
    # release still writes rows.
    override_reason = models.TextField(
        default="", db_default="", help_text="Reason to start despite failed pre-flight checks. Empty: none failed."
    )
    rolls_back = models.ForeignKey(
        "self",
        on_delete=models.PROTECT,
        null=True,
        related_name="rollbacks",
        help_text="Only for a rollback: the upgrade that it rolls back.",
    )
    validation = models.CharField(
        max_length=10, choices=Validation.choices, default=Validation.NONE, db_default=Validation.NONE
    )
    request_id = models.CharField(
        max_length=64, default=NO_REQUEST, db_default=NO_REQUEST, help_text="Of the request that triggered it."
    )
    stop_requested_at = models.DateTimeField(null=True)
    stop_requested_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)

    recorded: "list[Rollout] | None" = None  # set by the command that has just recorded it
    triggers_left: int | None = None  # set by it too: how many more may be triggered within the hour

    objects = UpgradeQuerySet.as_manager()

    class Meta:
        db_table = "deployment_upgrades"
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["organization", "-created_at", "-id"], name="upgrade_newest_first"),
            models.Index(fields=["organization", "status", "-created_at", "-id"], name="upgrade_by_status"),
            models.Index(fields=["organization", "validation", "-created_at", "-id"], name="upgrade_by_validation"),
            models.Index(fields=["organization", "target", "-created_at", "-id"], name="upgrade_by_target"),
            models.Index(fields=["completed_at"], name="upgrade_completed"),
            models.Index(fields=["organization", "version", "-created_at", "-id"], name="upgrade_by_version"),
            models.Index(fields=["organization", "initiated_by_lower", "-created_at", "-id"], name="upgrade_by_person"),
        ]
        constraints = [
            models.CheckConstraint(condition=models.Q(status__in=UPGRADE_STATUSES), name="upgrade_status_known"),
        ]

    def __str__(self) -> str:
        return self.upgrade_id

    @property
    def is_open(self) -> bool:
        return self.status in OPEN

    @property
    def is_rollback(self) -> bool:
        return self.kind == Kind.ROLLBACK

    @property
    def aws_target(self) -> AwsTarget:
        """Return region and role of the trigger, and the current external id, which may have been rotated since."""
        return replace(
            self.organization.aws_target,
            region=self.region,
            role_arn=self.role_arn or None,
            cluster=self.cluster,
            writer=self.upgrade_id,
        )

    @property
    def message(self) -> str:
        """Describe the current state in one or two sentences. Uses the prefetched rollouts."""
        return describe_upgrade(
            Status(self.status),
            [(rollout.service, Status(rollout.status), rollout.outcome) for rollout in self.rollouts.all()],
            reasons={rollout.service: rollout.rollout_reason for rollout in self.rollouts.all()},
            is_rollback=self.is_rollback,
        )

    @property
    def error_message(self) -> str | None:
        """Return the error messages of the rollouts by service, or None. Leaves out those that were not attempted."""
        rollouts = self.rollouts.all()
        return describe_errors((rollout.service, rollout.outcome, rollout.error_message) for rollout in rollouts)

    @property
    def has_advanced(self) -> bool:
        """Return whether any service completed, so that it can be validated. Uses the prefetched rollouts."""
        return any(rollout.outcome in ROLLED_OUT for rollout in self.rollouts.all())

    @property
    def version_steps(self) -> dict[tuple[str, str | None], list[str]]:
        """Return the distinct known (from, to) versions, each with its services. Uses the prefetched rollouts."""
        steps: dict[tuple[str, str | None], list[str]] = {}
        for each in self.rollouts.all():
            if each.from_version:
                steps.setdefault((each.from_version, each.to_version), []).append(each.service)
        return steps

    @property
    def preflight_checks(self) -> list["UpgradeCheck"]:
        """Return the pre-flight results of the trigger. Old upgrades have none. Uses the prefetched checks."""
        return [check for check in self.checks.all() if check.stage == Stage.PREFLIGHT]

    @property
    def preflight_counts(self) -> list[tuple[str, int]]:
        """Return (label, count) for each status that any pre-flight check has, failures first."""
        statuses = [check.status for check in self.preflight_checks]
        words = {CheckStatus.FAIL: "failed", CheckStatus.UNKNOWN: "not known", CheckStatus.PASS: "passed"}
        return [(word, statuses.count(status)) for status, word in words.items() if status in statuses]


def attach_rollouts(upgrades: Iterable[Upgrade]) -> list[Upgrade]:
    """Return the upgrades with what a row shows of their rollouts, in their order. *Costs* one query.

    `prefetch_related` would make a condition for each upgrade, which takes longer than the query.
    """
    rows = list(upgrades)
    of_rows = Rollout.objects.filter(upgrade__in=[each.pk for each in rows]) if rows else Rollout.objects.none()
    attach(rows, "rollouts", of_rows.only(*ROLLOUT_IN_ROW).order_by("position"))
    return rows


class UpgradeCount(models.Model):
    """The number of an organization's upgrades by target, status and validation state. A trigger on Upgrade writes it."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    target = models.CharField(max_length=20)
    status = models.CharField(max_length=20, choices=Status.choices)
    validation = models.CharField(max_length=10, choices=Validation.choices)
    count = models.IntegerField()

    class Meta:
        db_table = "deployment_upgrade_counts"
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "target", "status", "validation"], name="upgrade_count_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.count} {self.status} {self.validation}"


def is_known_in_ecs() -> models.Q:
    """Match rollouts whose deployment was found. After a lost reply, only its id or only its ARN may be known."""
    return models.Q(deployment_id__isnull=False) | models.Q(service_deployment_arn__isnull=False)


class RolloutQuerySet(models.QuerySet["Rollout"]):
    def unfinished(self) -> Self:
        return self.exclude(phase=Phase.DONE)

    def attempted(self) -> Self:
        """Leave out the rollouts that an earlier service's failure ended before they began. There may be many in a row."""
        return self.exclude(outcome=Outcome.NOT_ATTEMPTED)

    def rolled_out(self) -> Self:
        """Return the rollouts whose service completed, and whose duration is known."""
        return self.filter(outcome__in=sorted(ROLLED_OUT), started_at__isnull=False, completed_at__isnull=False)

    def in_use(self, organization: Organization | Given, services: list[str]) -> Self:
        """Return the open rollouts of these services. Each blocks a new upgrade of its service."""
        return self.unfinished().filter(organization=organization, service__in=services).select_related("upgrade")

    def due(self) -> Self:
        """Return the rollouts that may be claimed now: due and without a lease, by the database's clock."""
        return self.unfinished().filter(due()).order_by("next_check_at", "id")


def newest_of_each(
    rollouts: "models.QuerySet[Rollout, Row]",
    organization: Organization | Given,
    services: Iterable[str],
    most: int = 1,
) -> "models.QuerySet[Rollout, Row]":
    """Return the newest `most` of these rollouts for each service: an open one, then the newest completed.

    *Costs* one query. Each service's part of it ends after `most` entries of an index, so it costs the same however long
    the past is. A window or DISTINCT ON would read all of it. The result can be neither filtered nor ordered.
    """
    ordered = rollouts.filter(organization=organization).order_by("-completed_at", "-id")
    parts = [ordered.filter(service=service)[:most] for service in services]
    return parts[0].union(*parts[1:], all=True) if parts else rollouts.none()


class Rollout(Revised, Leased):
    """The rollout of one platform service in one upgrade. Only the engine writes it, under a lease."""

    upgrade = models.ForeignKey(Upgrade, on_delete=models.CASCADE, related_name="rollouts")
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    service = models.CharField(max_length=20, choices=PlatformService.choices)
    service_name = models.CharField(max_length=255)
    position = models.SmallIntegerField()
    status = models.CharField(max_length=20, choices=Status.choices, default=Status.PENDING)
    outcome = models.CharField(max_length=20, choices=Outcome.choices, null=True)  # null: no outcome yet
    phase = models.CharField(max_length=10, choices=Phase.choices)

    # What should run, decided at the trigger. All null: the image that the service's task definition names.
    wanted_version = models.CharField(max_length=255, null=True)
    wanted_image = models.CharField(
        max_length=512, null=True, help_text="`<repository>@sha256:..`. A revision with this image is registered."
    )
    wanted_task_definition = models.CharField(max_length=512, null=True, help_text="Only for a rollback.")

    # What ECS runs, before and after. Digests are `sha256:..`.
    from_digest = models.CharField(max_length=80, null=True)  # null is "not known"
    to_digest = models.CharField(max_length=80, null=True)
    from_version = models.CharField(max_length=255, null=True)  # null is "not known"
    to_version = models.CharField(max_length=255, null=True)
    previous_task_definition = models.CharField(max_length=512, null=True)
    task_definition = models.CharField(max_length=512, null=True)

    # The rollout's own deployment, and the baseline before it.
    deployment_id = models.CharField(max_length=100, null=True)
    service_deployment_arn = models.CharField(max_length=512, null=True)
    baseline = models.JSONField(
        default=dict, help_text="Deployment ids and ARN before the UpdateService call, and AWS's time then."
    )
    attribution_note = models.TextField(null=True)  # shown with the verdict if the deployment was not certain
    stop_sent_at = models.DateTimeField(null=True, help_text="When StopServiceDeployment was called.")
    attempts = models.SmallIntegerField(default=0, help_text="Number of UpdateService calls.")
    database = models.CharField(
        max_length=100,
        db_default=DatabaseIdentity(),
        help_text="The database in which it was requested, or last found to have started nothing.",
    )

    # The last observation.
    desired_count = models.IntegerField(null=True)
    running_count = models.IntegerField(null=True)
    pending_count = models.IntegerField(null=True)
    failed_tasks = models.IntegerField(null=True)
    target_running = models.IntegerField(default=0, help_text="Tasks of the new deployment.")
    target_pending = models.IntegerField(default=0)
    has_run = models.BooleanField(
        default=False, db_default=False, help_text="A task of the new deployment was seen running."
    )
    source_running = models.IntegerField(default=0, help_text="Tasks of the deployments it replaces.")
    breaker_failures = models.IntegerField(default=0)
    breaker_threshold = models.IntegerField(default=0)
    rollout_reason = models.TextField(null=True)
    error_message = models.TextField(null=True)
    stopped_tasks = models.JSONField(default=list, help_text="Newest first: id, stopped_at, reason, exit_code.")
    # What only some strategies and hooks of ECS have. Null: ECS does not report it, or it was not read yet.
    configuration = models.JSONField(
        null=True, help_text="The deployment's own configuration, as in portal.aws.ecs.DeploymentConfiguration."
    )
    strategy = models.CharField(max_length=20, null=True)
    lifecycle_stage = models.CharField(max_length=50, null=True)
    stage_began_at = models.DateTimeField(null=True, help_text="When the stage was first observed.")
    production_weight = models.FloatField(null=True, help_text="Percentage of the traffic on the new version.")
    test_weight = models.FloatField(null=True, help_text="Percentage of the test traffic on the new version.")
    source_weight = models.FloatField(null=True, help_text="Percentage of the traffic on the earlier version.")
    traffic_shifted_at = models.DateTimeField(
        null=True, help_text="When all traffic was first observed on the new version."
    )
    bake_ends_at = models.DateTimeField(null=True, help_text="About when the bake ends. ECS does not report it.")
    hook = models.JSONField(
        null=True, help_text="The hook that waits or runs: id, type, stage, status, expires_at, timeout_action, target."
    )
    waiting_since = models.DateTimeField(null=True, help_text="Since when the deployment waits for a decision.")
    allowed_seconds = models.IntegerField(
        null=True, help_text="Part of the deadline that the deployment's own configuration adds."
    )
    is_overdue = models.BooleanField(
        default=False, db_default=False, help_text="Past its deadline, and open in ECS as far as is known."
    )
    overdue_notified_at = models.DateTimeField(null=True, help_text="When the notification about it was sent.")
    is_draining = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Ended by early success, and old tasks still run or new ones still have to start.",
    )
    stall_seconds = models.IntegerField(null=True, help_text="Flagged as stalled after this long without progress.")
    is_stalled = models.BooleanField(default=False)
    progressed_at = models.DateTimeField(null=True, help_text="When the counts last moved forward.")
    doubted_at = models.DateTimeField(
        null=True, help_text="When a verdict that needs a second observation was first observed."
    )
    check_error = models.TextField(null=True, help_text="Why the last read of ECS failed.")
    stop_error = models.TextField(null=True, help_text="Why the requested stop was not carried out, at the last check.")
    last_checked_at = models.DateTimeField(null=True, help_text="Time of the last successful read of ECS.")

    started_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)
    deadline_at = models.DateTimeField(null=True)

    objects = RolloutQuerySet.as_manager()

    class Meta:
        db_table = "deployment_upgrade_services"
        ordering = ["upgrade_id", "position"]
        indexes = [
            models.Index(fields=["next_check_at"], condition=~models.Q(phase="done"), name="rollout_due"),
            models.Index(
                fields=["organization", "service", "-completed_at", "-id"],
                condition=~models.Q(outcome="not_attempted"),
                name="rollout_attempted",
            ),
            models.Index(
                fields=["organization", "service", "-completed_at", "-id"],
                condition=models.Q(
                    outcome__in=["completed", "completed_early"], started_at__isnull=False, completed_at__isnull=False
                ),
                name="rollout_rolled_out",
            ),
            models.Index(fields=["last_checked_at"], condition=models.Q(is_draining=True), name="rollout_draining"),
            models.Index(fields=["organization", "task_definition"], name="rollout_by_revision"),
            models.Index(fields=["organization", "previous_task_definition"], name="rollout_by_previous"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "service"], condition=~models.Q(phase="done"), name=OPEN_ROLLOUT_CONSTRAINT
            ),
            models.UniqueConstraint(fields=["upgrade", "service"], name="rollout_once_per_upgrade"),
            # The previous release ignores the wanted_ columns. The database refuses its call or its conclusion, so that
            # a worker of this release carries the rollout out.
            models.CheckConstraint(
                condition=~(models.Q(phase=Phase.CALLING) | models.Q(outcome=Outcome.NO_CHANGE))
                | (
                    (models.Q(wanted_image__isnull=True) | models.Q(to_digest__isnull=False))
                    & (
                        models.Q(wanted_task_definition__isnull=True)
                        | models.Q(task_definition=models.F("wanted_task_definition"))
                    )
                ),
                name="rollout_does_what_is_wanted",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.service} of {self.upgrade_id}"

    @classmethod
    def unfinished(cls) -> RolloutQuerySet:
        return cls.objects.unfinished()

    @property
    def is_terminal(self) -> bool:
        return self.phase == Phase.DONE

    @property
    def hook_expires_at(self) -> datetime | None:
        """Return until when ECS waits for the hook; None if there is none, or if ECS does not say."""
        expires_at = (self.hook or {}).get("expires_at")
        return datetime.fromisoformat(expires_at) if expires_at else None

    @property
    def waiting_hook(self) -> dict[str, Any] | None:
        """Return the pause that waits for a decision, as it was last observed. None if there is none."""
        is_waiting = self.phase == Phase.WATCHING and self.outcome == Outcome.WAITING_FOR_DECISION
        return self.hook if is_waiting else None

    @property
    def decision(self) -> "Decision | None":
        """Return the newest decision. Uses prefetched decisions."""
        return next(iter(self.decisions.all()), None)


class Decision(Revised):
    """A person's decision at one pause. The command creates it; the engine sends it to ECS and writes the result.

    It is pending until `ended_at`. `error` then says why it had no effect, and before that why it could not be sent.
    """

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="decisions")
    hook_id = models.CharField(max_length=MAX_HOOK_ID_LENGTH, help_text="ECS's id of the pause that the person saw.")
    stage = models.CharField(max_length=50, null=True)  # null: ECS reports none for ROLLING
    action = models.CharField(max_length=10, choices=DecisionAction.choices)
    reason = models.TextField(blank=True)
    decided_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    decided_by_email = models.CharField(max_length=254)
    decided_at = models.DateTimeField(db_default=Now())
    sent_at = models.DateTimeField(null=True, help_text="When ContinueServiceDeployment was called.")
    ended_at = models.DateTimeField(null=True, help_text="When ECS accepted it, or the pause ended without it.")
    error = models.TextField(null=True)  # null: none

    class Meta:
        db_table = "deployment_upgrade_decisions"
        ordering = ["-decided_at", "-id"]
        constraints = [models.UniqueConstraint(fields=["rollout", "hook_id"], name="decision_once_per_hook")]

    def __str__(self) -> str:
        return f"{self.action} at {self.stage}"


class UpgradeEventQuerySet(models.QuerySet["UpgradeEvent"]):
    def for_timeline(self, upgrade: Upgrade, *, kind: str | None = None) -> Self:
        """Return the portal's entries of the upgrade and ECS's events of its rollouts, newest first.

        The upgrade must come from `for_record`.
        """
        rollouts = [rollout.pk for rollout in upgrade.rollouts.all()]
        found = self.filter(models.Q(upgrade=upgrade) | models.Q(rollout__in=rollouts))
        if kind:
            found = found.filter(kind=kind)
        return found.select_related("rollout").order_by("-created_at", "-id")

    def of_upgrade(self, upgrade: models.OuterRef, *, kind: str | None = None) -> Self:
        """Return the same entries, inside of a query of upgrades. Two indexes find them, so two queries name their ids."""
        its_own = UpgradeEvent.objects.filter(upgrade=models.OuterRef(upgrade))
        of_rollouts = UpgradeEvent.objects.filter(rollout__upgrade=models.OuterRef(upgrade))
        found = self.filter(pk__in=its_own.order_by().values("pk").union(of_rollouts.order_by().values("pk")))
        return found.filter(kind=kind) if kind else found


def event_uuid(pk: int) -> uuid.UUID:
    """Return the id of a timeline entry in the API, where ids are UUIDs."""
    return uuid.uuid5(EVENT_IDS, str(pk))


def event_actor(actor_email: str, kind: str) -> str:
    """Return who wrote a timeline entry: a person's e-mail address, `ecs`, or `system` for the portal itself."""
    return actor_email or ("ecs" if kind == EventKind.ECS else "system")


class UpgradeEvent(QuicklyRead):
    """A timeline entry: an action of the portal (`upgrade` is set) or an ECS event of a rollout.

    ECS events are stored here because ECS keeps only the newest hundred of a service.
    """

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    upgrade = models.ForeignKey(Upgrade, on_delete=models.CASCADE, null=True, related_name="events")
    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, null=True, related_name="events")
    kind = models.CharField(max_length=30, choices=EventKind.choices, default=EventKind.ECS, db_default=EventKind.ECS)
    actor_email = models.CharField(
        max_length=254, default="", db_default="", help_text="Empty for the portal itself and for ECS."
    )
    ecs_event_id = models.CharField(max_length=100, null=True)  # null: not an ECS event
    message = models.TextField()
    created_at = models.DateTimeField(db_default=Now())

    objects = UpgradeEventQuerySet.as_manager()

    class Meta:
        db_table = "deployment_upgrade_events"
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["rollout", "ecs_event_id"], name="rollout_event_once"),
            models.CheckConstraint(
                condition=models.Q(upgrade__isnull=False) | models.Q(rollout__isnull=False), name="event_of_something"
            ),
        ]

    def __str__(self) -> str:
        return self.message

    @property
    def uuid(self) -> uuid.UUID:
        return event_uuid(self.pk)

    @property
    def service(self) -> str | None:
        return self.rollout.service if self.rollout else None

    @property
    def actor(self) -> str:
        return event_actor(self.actor_email, self.kind)


class UpgradeCheck(Revised):
    """One check: a pre-flight result of the trigger (never changed) or a row of the validation matrix (newest result)."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    upgrade = models.ForeignKey(Upgrade, on_delete=models.CASCADE, related_name="checks")
    stage = models.CharField(max_length=10, choices=Stage.choices)
    name = models.CharField(max_length=40, help_text="`check` in the API.")
    position = models.SmallIntegerField(help_text="Display order.")
    status = models.CharField(max_length=10, choices=CheckStatus.choices, default=CheckStatus.UNKNOWN)
    detail = models.TextField(blank=True, help_text="The finding, in one sentence.")
    evidence = models.JSONField(default=dict, help_text="Numbers and names behind the finding, never a response body.")
    # Null: the portal checked it itself, or it is not checked yet (then checked_at is null as well).
    checked_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    checked_by_email = models.CharField(max_length=254, blank=True)
    note = models.TextField(blank=True, help_text="Note of the person who signed it.")
    checked_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "deployment_upgrade_checks"
        ordering = ["upgrade_id", "stage", "position"]
        constraints = [models.UniqueConstraint(fields=["upgrade", "stage", "name"], name="check_once_per_stage")]

    def __str__(self) -> str:
        return f"{self.name}: {self.status}"

    @property
    def label(self) -> str:
        names = PreflightCheck if self.stage == Stage.PREFLIGHT else MatrixRow
        return str(names(self.name).label)

    @property
    def is_signed(self) -> bool:
        return self.checked_by_id is not None

    @property
    def is_against_probe(self) -> bool:
        """Return whether the signed result differs from the portal's own check."""
        probed = self.evidence.get("probed", CheckStatus.UNKNOWN)
        return self.is_signed and probed not in (CheckStatus.UNKNOWN, self.status)


class ValidationRun(Revised, Leased):
    """The portal's own validation of one upgrade, in the background: when to probe next, and until when."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    upgrade = models.OneToOneField(Upgrade, on_delete=models.CASCADE, related_name="validation_run")
    ends_at = models.DateTimeField(help_text="Probing stops after this time.")
    steady_since = models.DateTimeField(null=True, help_text="Since when every check found the services steady.")
    reminded_at = models.DateTimeField(
        null=True, help_text="When the notification about the missing validation was sent."
    )
    is_done = models.BooleanField(default=False)

    class Meta:
        db_table = "deployment_upgrade_validations"
        indexes = [
            models.Index(fields=["next_check_at"], condition=models.Q(is_done=False), name="validation_due"),
            models.Index(fields=["ends_at"], name="validation_by_end"),
        ]

    def __str__(self) -> str:
        return f"validation of {self.upgrade_id}"

    @classmethod
    def unfinished(cls) -> "models.QuerySet[ValidationRun]":
        return cls.objects.filter(is_done=False)

    def found(self, check: UpgradeCheck) -> bool:
        """Return whether the row's result comes from this run. A rerun does not use earlier results."""
        began_at = self.ends_at - timedelta(seconds=settings.UPGRADE_VALIDATION_SECONDS)
        return check.checked_at is not None and check.checked_at >= began_at
