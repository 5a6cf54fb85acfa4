"""The record of upgrades: one row for each request, one for each service it rolls, ECS's events as they were seen."""

import uuid
from datetime import timedelta
from typing import Self

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.db import models
from django.db.models.functions import Now

from portal.aws.credentials import AwsTarget
from portal.leases import Leased, due
from portal.models import Organization, User
from upgrades.states import (
    OPEN,
    TARGETS,
    UPGRADE_STATUSES,
    CheckStatus,
    EventKind,
    MatrixRow,
    Outcome,
    Phase,
    PlatformService,
    PreflightCheck,
    Stage,
    Status,
    Validation,
    describe_upgrade,
)

MAX_VERSION_LENGTH = 128  # of a tag: https://docs.docker.com/reference/cli/docker/image/tag/
OPEN_ROLLOUT_CONSTRAINT = "one_open_rollout_per_service"
EVENT_IDS = uuid.UUID("9f3f2f36-0a5c-5a41-9a3c-6f0d5a1b7c11")


class Kind(models.TextChoices):
    UPGRADE = "upgrade", "Upgrade"
    ROLLBACK = "rollback", "Rollback"


class UpgradeQuerySet(models.QuerySet["Upgrade"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        return self.filter(organization__in=Organization.objects.visible_to(user))

    def for_record(self) -> Self:
        """With everything that the record shows: two queries more, whatever the number of services."""
        return self.select_related("organization", "stop_requested_by").prefetch_related("rollouts")

    def newest_first(self) -> Self:
        return self.order_by("-created_at", "-id")

    def locked(self, pk: int) -> "Upgrade":
        """With its organization, under the lock of its row: there engine, validation and signers take turns."""
        return self.select_related("organization").select_for_update(of=("self",)).get(pk=pk)

    def matching(
        self,
        *,
        status: str | None = None,
        service: str | None = None,
        version: str | None = None,
        initiated_by: str | None = None,
        validation: str | None = None,
    ) -> Self:
        """The history's filters; None does not filter. `service` means: rolled that service, or asked for `all`."""
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
            found = found.filter(initiated_by_email__iexact=initiated_by)
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
        """The organization's upgrades for API and page: filtered, in a total order, with what a row shows."""
        return (
            self.visible_to(user)
            .filter(organization=organization)
            .matching(status=status, service=service, version=version, initiated_by=initiated_by, validation=validation)
            .for_record()
            .newest_first()
        )


class Upgrade(models.Model):
    """One recorded request to roll platform services. Once its row is committed it will be carried out."""

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
    success_count = models.IntegerField(default=0)
    failed_count = models.IntegerField(default=0)
    estimated_seconds = models.IntegerField(null=True, help_text="From past rollouts, at the trigger; null: no past.")
    # Where it rolls, as it was at the trigger: a record that is changed meanwhile moves no rollout to another place.
    cluster = models.CharField(max_length=255)
    region = models.CharField(max_length=50)
    role_arn = models.CharField(max_length=600, blank=True)
    # Columns that came after the first release have a default in the database: while the portal upgrades itself, the
    # release before still writes rows.
    override_reason = models.TextField(
        default="", db_default="", help_text="Why it was started although a pre-flight check failed; empty: none did."
    )
    rolls_back = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, related_name="rollbacks", help_text="Of a rollback: of what."
    )
    validation = models.CharField(
        max_length=10, choices=Validation.choices, default=Validation.NONE, db_default=Validation.NONE
    )
    stop_requested_at = models.DateTimeField(null=True)
    stop_requested_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)

    objects = UpgradeQuerySet.as_manager()

    class Meta:
        db_table = "deployment_upgrades"
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["organization", "-created_at", "-id"], name="upgrade_newest_first"),
            models.Index(fields=["organization", "status", "-created_at", "-id"], name="upgrade_by_status"),
            models.Index(fields=["organization", "validation", "-created_at", "-id"], name="upgrade_by_validation"),
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
        """Region and role as they were at the trigger; the external id as it is now, for it may have been renewed."""
        return AwsTarget(self.region, self.role_arn or None, self.organization.deployment_external_id or None)

    @property
    def message(self) -> str:
        """One sentence: what is true now. Uses the prefetched rollouts."""
        return describe_upgrade(
            Status(self.status),
            [(rollout.service, Status(rollout.status), rollout.outcome) for rollout in self.rollouts.all()],
            is_rollback=self.is_rollback,
        )

    @property
    def error_message(self) -> str | None:
        """The reasons of the rollouts that failed by themselves, service by service; None when none did."""
        reasons = [
            f"{rollout.service}: {rollout.error_message}"
            for rollout in self.rollouts.all()
            if rollout.error_message and rollout.outcome != Outcome.NOT_ATTEMPTED
        ]
        return " ".join(reasons) or None

    @property
    def has_advanced(self) -> bool:
        """Whether it left anything that may be validated. Uses the prefetched rollouts."""
        return any(rollout.outcome == Outcome.COMPLETED for rollout in self.rollouts.all())

    @property
    def version_steps(self) -> list[tuple[str, str | None]]:
        """From which version to which its services went, as far as it is known, each once. Uses the prefetched rollouts."""
        steps = [(each.from_version, each.to_version) for each in self.rollouts.all() if each.from_version]
        return list(dict.fromkeys(steps))

    @property
    def preflight_checks(self) -> list["UpgradeCheck"]:
        """As they were at the trigger; none for an upgrade of before there were any. Uses the prefetched checks."""
        return [check for check in self.checks.all() if check.stage == Stage.PREFLIGHT]

    @property
    def preflight_counts(self) -> list[tuple[str, int]]:
        """How many of them came to what, in words; statuses without any are left out."""
        statuses = [check.status for check in self.preflight_checks]
        words = {CheckStatus.FAIL: "failed", CheckStatus.UNKNOWN: "not known", CheckStatus.PASS: "passed"}
        return [(word, statuses.count(status)) for status, word in words.items() if status in statuses]


def is_known_in_ecs() -> models.Q:
    """Its deployment was found; of one whose call lost its answer ECS may have shown one of the two names alone."""
    return models.Q(deployment_id__isnull=False) | models.Q(service_deployment_arn__isnull=False)


class RolloutQuerySet(models.QuerySet["Rollout"]):
    def unfinished(self) -> Self:
        return self.exclude(phase=Phase.DONE)

    def in_use(self, organization: Organization, services: list[str]) -> Self:
        """The open rollouts of these services: each of them blocks another."""
        return self.unfinished().filter(organization=organization, service__in=services).select_related("upgrade")

    def due(self) -> Self:
        """What may be claimed now: its time has come and nobody holds it. The database's clock decides."""
        return self.unfinished().filter(due()).order_by("next_check_at", "id")


class Rollout(Leased):
    """What one upgrade does to one platform service. Written by rollouts.py alone, under a lease."""

    upgrade = models.ForeignKey(Upgrade, on_delete=models.CASCADE, related_name="rollouts")
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    service = models.CharField(max_length=20, choices=PlatformService.choices)
    service_name = models.CharField(max_length=255)
    position = models.SmallIntegerField()
    status = models.CharField(max_length=20, choices=Status.choices, default=Status.PENDING)
    outcome = models.CharField(max_length=20, choices=Outcome.choices, null=True)  # noqa: DJ001 - null: no outcome yet
    phase = models.CharField(max_length=10, choices=Phase.choices)

    # What is to run, decided at the trigger. All null: whatever the service's task definition names.
    wanted_version = models.CharField(max_length=255, null=True)  # noqa: DJ001
    wanted_image = models.CharField(  # noqa: DJ001
        max_length=512, null=True, help_text="`<repository>@sha256:..`: a revision with it is registered."
    )
    wanted_task_definition = models.CharField(max_length=512, null=True, help_text="Of a rollback.")  # noqa: DJ001

    # What ECS runs, before and after. Digests are `sha256:..`.
    from_digest = models.CharField(max_length=80, null=True)  # noqa: DJ001 - null is "not known"
    to_digest = models.CharField(max_length=80, null=True)  # noqa: DJ001
    from_version = models.CharField(max_length=255, null=True)  # noqa: DJ001 - null is "not known"
    to_version = models.CharField(max_length=255, null=True)  # noqa: DJ001
    previous_task_definition = models.CharField(max_length=512, null=True)  # noqa: DJ001
    task_definition = models.CharField(max_length=512, null=True)  # noqa: DJ001

    # The deployment that is mine, and what there was before it.
    deployment_id = models.CharField(max_length=100, null=True)  # noqa: DJ001
    service_deployment_arn = models.CharField(max_length=512, null=True)  # noqa: DJ001
    baseline = models.JSONField(default=dict, help_text="Deployment ids and ARNs before the call, AWS's time then.")
    attribution_note = models.TextField(null=True)  # noqa: DJ001 - said with the verdict when mine was not certain
    stop_sent_at = models.DateTimeField(null=True, help_text="When StopServiceDeployment was called for it.")
    attempts = models.SmallIntegerField(default=0, help_text="UpdateService calls.")

    # What was last seen of it.
    desired_count = models.IntegerField(null=True)
    running_count = models.IntegerField(null=True)
    pending_count = models.IntegerField(null=True)
    failed_tasks = models.IntegerField(null=True)
    target_running = models.IntegerField(default=0, help_text="Tasks of the new deployment.")
    target_pending = models.IntegerField(default=0)
    source_running = models.IntegerField(default=0, help_text="Tasks of the deployments it replaces.")
    breaker_failures = models.IntegerField(default=0)
    breaker_threshold = models.IntegerField(default=0)
    rollout_reason = models.TextField(null=True)  # noqa: DJ001
    error_message = models.TextField(null=True)  # noqa: DJ001
    stopped_tasks = models.JSONField(default=list, help_text="Newest first: id, stopped_at, reason, exit_code.")
    stall_seconds = models.IntegerField(null=True, help_text="Without progress for so long it is flagged as stalled.")
    is_stalled = models.BooleanField(default=False)
    progressed_at = models.DateTimeField(null=True, help_text="When the counts last moved forward.")
    doubted_at = models.DateTimeField(
        null=True, help_text="When ECS first said what must be seen twice to be believed."
    )
    check_error = models.TextField(null=True, help_text="Why the newest look at ECS failed.")  # noqa: DJ001
    stop_error = models.TextField(  # noqa: DJ001
        null=True, help_text="Why the stop that was asked for was not carried out, at the newest look."
    )
    last_checked_at = models.DateTimeField(null=True, help_text="The newest look that succeeded.")

    started_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)
    deadline_at = models.DateTimeField(null=True)

    objects = RolloutQuerySet.as_manager()

    class Meta:
        db_table = "deployment_upgrade_services"
        ordering = ["upgrade_id", "position"]
        indexes = [
            models.Index(fields=["next_check_at"], condition=~models.Q(phase="done"), name="rollout_due"),
            models.Index(fields=["organization", "service", "-completed_at"], name="rollout_past"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "service"], condition=~models.Q(phase="done"), name=OPEN_ROLLOUT_CONSTRAINT
            ),
            models.UniqueConstraint(fields=["upgrade", "service"], name="rollout_once_per_upgrade"),
            # The release before knows nothing of what is wanted: whatever it would call for or conclude is refused, and
            # this one's workers carry the rollout out.
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


class UpgradeEventQuerySet(models.QuerySet["UpgradeEvent"]):
    def for_timeline(self, upgrade: Upgrade, *, kind: str | None = None) -> Self:
        """What the portal told of the upgrade and ECS of its rollouts, newest first. The upgrade is of `for_record`."""
        rollouts = [rollout.pk for rollout in upgrade.rollouts.all()]
        found = self.filter(models.Q(upgrade=upgrade) | models.Q(rollout__in=rollouts))
        if kind:
            found = found.filter(kind=kind)
        return found.select_related("rollout").order_by("-created_at", "-id")


class UpgradeEvent(models.Model):
    """A line of an upgrade's timeline: what the portal did (`upgrade` is set), or one of ECS's events of a rollout.

    ECS's are kept because ECS keeps only the newest hundred of a service.
    """

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    upgrade = models.ForeignKey(Upgrade, on_delete=models.CASCADE, null=True, related_name="events")
    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, null=True, related_name="events")
    kind = models.CharField(max_length=30, choices=EventKind.choices, default=EventKind.ECS, db_default=EventKind.ECS)
    actor_email = models.CharField(max_length=254, default="", db_default="", help_text="Empty: the portal, or ECS.")
    ecs_event_id = models.CharField(max_length=100, null=True)  # noqa: DJ001 - null: not one of ECS's
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
        """Its id in the API, where ids are UUIDs."""
        return uuid.uuid5(EVENT_IDS, str(self.pk))

    @property
    def service(self) -> str | None:
        return self.rollout.service if self.rollout else None

    @property
    def actor(self) -> str:
        """Who: a person's e-mail, `ecs`, or `system` for the portal itself."""
        return self.actor_email or ("ecs" if self.kind == EventKind.ECS else "system")


class UpgradeCheck(models.Model):
    """One row of pre-flight (as it was at the trigger, never changed) or of the validation matrix (its newest result)."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    upgrade = models.ForeignKey(Upgrade, on_delete=models.CASCADE, related_name="checks")
    stage = models.CharField(max_length=10, choices=Stage.choices)
    name = models.CharField(max_length=40, help_text="`check` in the API.")
    position = models.SmallIntegerField(help_text="In the order in which people read them.")
    status = models.CharField(max_length=10, choices=CheckStatus.choices, default=CheckStatus.UNKNOWN)
    detail = models.TextField(blank=True, help_text="What was found, in a sentence.")
    evidence = models.JSONField(default=dict, help_text="What it was found from: numbers and names, never a body.")
    # Null: the portal checked it by itself, or nobody has yet (then checked_at is null as well).
    checked_by = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    checked_by_email = models.CharField(max_length=254, blank=True)
    note = models.TextField(blank=True, help_text="Of the person who signed it.")
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
        """Whether a person signed another thing than the portal's own check found."""
        probed = self.evidence.get("probed", CheckStatus.UNKNOWN)
        return self.is_signed and probed not in (CheckStatus.UNKNOWN, self.status)


class ValidationRun(Leased):
    """The portal's own validation of one upgrade, in the background: when to probe again, and until when."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    upgrade = models.OneToOneField(Upgrade, on_delete=models.CASCADE, related_name="validation_run")
    ends_at = models.DateTimeField(help_text="Nothing is probed any more after that.")
    steady_since = models.DateTimeField(null=True, help_text="Since when every look found the services steady.")
    reminded_at = models.DateTimeField(null=True, help_text="When people were told that its validation is missing.")
    is_done = models.BooleanField(default=False)

    class Meta:
        db_table = "deployment_upgrade_validations"
        indexes = [models.Index(fields=["next_check_at"], condition=models.Q(is_done=False), name="validation_due")]

    def __str__(self) -> str:
        return f"validation of {self.upgrade_id}"

    @classmethod
    def unfinished(cls) -> "models.QuerySet[ValidationRun]":
        return cls.objects.filter(is_done=False)

    def found(self, check: UpgradeCheck) -> bool:
        """Whether the row's result is of this run; a run that is begun again takes nothing from before."""
        began_at = self.ends_at - timedelta(seconds=settings.UPGRADE_VALIDATION_SECONDS)
        return check.checked_at is not None and check.checked_at >= began_at
