"""Serializers for the responses of the upgrade routes. The schema at /api/schema is generated from them.

PostgreSQL makes the records of status and history (reads.py). Their serializers here only describe them.
"""

from datetime import datetime
from typing import Any

from rest_framework import serializers

from portal.models import AuditEvent
from portal.times import utc
from upgrades.checks.matrix import find_validation_run, get_matrix_rows
from upgrades.models import Decision, Kind, Rollout, Upgrade, UpgradeCheck, UpgradeEvent
from upgrades.states import (
    AUTOMATIC,
    TARGETS,
    UPGRADE_STATUSES,
    CheckStatus,
    DecisionAction,
    EventKind,
    MatrixRow,
    Outcome,
    PlatformService,
    PreflightCheck,
    Stage,
    Status,
    Validation,
)

DEFAULT_EVENTS, MAX_EVENTS = 100, 500


class UtcDateTimeField(serializers.DateTimeField):
    """A time in ISO 8601, in UTC, ending in `Z`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(format="%Y-%m-%dT%H:%M:%S.%fZ", read_only=True, **options)


class HookEntry(serializers.Serializer[Any]):
    """The lifecycle hook that ECS waits for. `AWAITING_ACTION`: a pause that waits for a person."""

    id = serializers.CharField(help_text="ECS's id. A later pause of the same deployment has another one.")
    type = serializers.CharField(allow_null=True, help_text="`PAUSE` or `AWS_LAMBDA`.")
    stage = serializers.CharField(allow_null=True)
    status = serializers.CharField(help_text="`AWAITING_ACTION` or `IN_PROGRESS`.")
    expires_at = serializers.CharField(allow_null=True)
    timeout_action = serializers.CharField(
        allow_null=True, help_text="What ECS does at `expires_at`: `ROLLBACK` or `CONTINUE`."
    )
    target = serializers.CharField(allow_null=True, help_text="The ARN of a Lambda function.")


class DecisionEntry(serializers.ModelSerializer[Decision]):
    """A person's decision at a pause. ECS took it if `ended_at` is set and `error` is null."""

    action = serializers.ChoiceField(choices=DecisionAction.values)
    decided_by = serializers.CharField(source="decided_by_email")
    decided_at = UtcDateTimeField()
    sent_at = UtcDateTimeField(allow_null=True)
    ended_at = UtcDateTimeField(allow_null=True)
    error = serializers.CharField(
        allow_null=True, help_text="Why it had no effect; before `ended_at`, why ECS has not taken it yet."
    )

    class Meta:
        model = Decision
        fields = ["hook_id", "stage", "action", "reason", "decided_by", "decided_at", "sent_at", "ended_at", "error"]
        read_only_fields = fields


class ServiceEntry(serializers.ModelSerializer[Rollout]):
    """The rollout of one service in an upgrade.

    Stage, weights and hook are null for strategies that do not have them.
    """

    service = serializers.ChoiceField(choices=PlatformService.values)
    status = serializers.ChoiceField(choices=[s.value for s in Status if s != Status.PARTIAL])
    outcome = serializers.ChoiceField(choices=Outcome.values, allow_null=True)
    started_at = UtcDateTimeField(allow_null=True)
    completed_at = UtcDateTimeField(allow_null=True)
    last_checked_at = UtcDateTimeField(allow_null=True)
    stage_began_at = UtcDateTimeField(allow_null=True)
    bake_ends_at = UtcDateTimeField(allow_null=True)
    deadline_at = UtcDateTimeField(allow_null=True)
    hook = HookEntry(allow_null=True)
    decision = DecisionEntry(allow_null=True, help_text="The newest decision at a pause.")

    class Meta:
        model = Rollout
        fields = [
            "service",
            "service_name",
            "status",
            "outcome",
            "desired_count",
            "running_count",
            "pending_count",
            "failed_tasks",
            "from_version",
            "to_version",
            "task_definition",
            "previous_task_definition",
            "deployment_id",
            "rollout_reason",
            "error_message",
            "started_at",
            "completed_at",
            "last_checked_at",
            "strategy",
            "lifecycle_stage",
            "stage_began_at",
            "production_weight",
            "test_weight",
            "source_weight",
            "target_running",
            "target_pending",
            "source_running",
            "bake_ends_at",
            "hook",
            "decision",
            "is_stalled",
            "is_overdue",
            "deadline_at",
            "is_draining",
        ]
        read_only_fields = fields


class PreflightEntry(serializers.Serializer[Any]):
    """One pre-flight check. `unknown` means that it could not be verified."""

    check = serializers.ChoiceField(source="name", choices=PreflightCheck.values)
    title = serializers.CharField(source="label")
    status = serializers.ChoiceField(choices=CheckStatus.values)
    detail = serializers.CharField()
    evidence = serializers.DictField()
    checked_at = UtcDateTimeField()


class PreflightRecord(serializers.Serializer[Any]):
    """The checks before an upgrade. `may_start` is false if a check fails: a trigger then needs an `override_reason`."""

    organization = serializers.CharField()
    service = serializers.ChoiceField(choices=TARGETS)
    may_start = serializers.BooleanField()
    checks = PreflightEntry(many=True)
    checked_at = UtcDateTimeField()


class CheckEntry(serializers.ModelSerializer[UpgradeCheck]):
    """A pre-flight check as it was at the trigger, or a check of the validation.

    `checked_by` is null if the portal ran the check, or if it has not been checked yet.
    """

    check = serializers.ChoiceField(source="name", choices=[*PreflightCheck.values, *MatrixRow.values])
    stage = serializers.ChoiceField(choices=Stage.values)
    title = serializers.SerializerMethodField()
    status = serializers.ChoiceField(choices=CheckStatus.values)
    evidence = serializers.DictField()
    checked_by = serializers.SerializerMethodField()
    note = serializers.SerializerMethodField()
    checked_at = UtcDateTimeField(allow_null=True)

    class Meta:
        model = UpgradeCheck
        fields = ["stage", "check", "title", "status", "detail", "evidence", "checked_by", "note", "checked_at"]
        read_only_fields = fields

    def get_title(self, check: UpgradeCheck) -> str:
        return check.label

    def get_checked_by(self, check: UpgradeCheck) -> str | None:
        return check.checked_by_email or None

    def get_note(self, check: UpgradeCheck) -> str | None:
        return check.note or None


class UpgradeSummary(serializers.ModelSerializer[Upgrade]):
    """The fields that status and history have in common. `success` is true once the whole upgrade is a SUCCESS."""

    success = serializers.BooleanField(read_only=True)
    organization = serializers.CharField(source="organization.slug")
    status = serializers.ChoiceField(choices=[s.value for s in UPGRADE_STATUSES])
    kind = serializers.ChoiceField(choices=Kind.values)
    validation = serializers.ChoiceField(choices=Validation.values)
    initiated_by = serializers.CharField(source="initiated_by_email")
    message = serializers.CharField()
    error_message = serializers.CharField(allow_null=True)
    override_reason = serializers.CharField(read_only=True, allow_null=True, help_text="Null if no check failed.")
    started_at = UtcDateTimeField(allow_null=True)
    completed_at = UtcDateTimeField(allow_null=True)
    checks = CheckEntry(many=True)


SUMMARY_FIELDS = [
    "success",
    "upgrade_id",
    "organization",
    "status",
    "kind",
    "version",
    "force_new_deployment",
    "reason",
    "initiated_by",
    "services",
    "success_count",
    "failed_count",
    "validation",
    "message",
    "error_message",
    "override_reason",
    "started_at",
    "completed_at",
    "checks",
]


class UpgradeRecord(UpgradeSummary):
    """One upgrade, with an entry for each service."""

    services = ServiceEntry(source="rollouts", many=True)

    class Meta:
        model = Upgrade
        fields = SUMMARY_FIELDS
        read_only_fields = fields


class HistoryItem(UpgradeSummary):
    """One upgrade in the history. `services` holds only the names of its services."""

    services = serializers.ListField(child=serializers.CharField(), read_only=True)
    service_count = serializers.IntegerField(read_only=True)

    class Meta:
        model = Upgrade
        fields = [*SUMMARY_FIELDS, "service_count"]
        read_only_fields = fields


class History(serializers.Serializer[Any]):
    """A page of upgrades, with the organization and the filters that were applied."""

    items = HistoryItem(many=True)
    total = serializers.IntegerField()
    skip = serializers.IntegerField()
    limit = serializers.IntegerField()
    has_more = serializers.BooleanField()
    organization = serializers.CharField()
    status = serializers.CharField(allow_null=True)
    service = serializers.CharField(allow_null=True)
    version = serializers.CharField(allow_null=True)
    initiated_by = serializers.CharField(allow_null=True)
    validation = serializers.CharField(allow_null=True)


class TimelineItem(serializers.ModelSerializer[UpgradeEvent]):
    """A timeline entry. `service` is null if the entry is about the whole upgrade."""

    id = serializers.UUIDField(source="uuid")
    kind = serializers.ChoiceField(choices=EventKind.values)
    service = serializers.ChoiceField(choices=PlatformService.values, allow_null=True)
    actor = serializers.CharField(help_text="An e-mail address, `system` (the portal) or `ecs`.")
    created_at = UtcDateTimeField()

    class Meta:
        model = UpgradeEvent
        fields = ["id", "kind", "service", "actor", "message", "created_at"]
        read_only_fields = fields


class TimelineList(serializers.Serializer[Any]):
    """A page of timeline entries, with the upgrade that they belong to."""

    upgrade_id = serializers.CharField()
    upgrade_status = serializers.ChoiceField(choices=[s.value for s in UPGRADE_STATUSES])
    organization = serializers.CharField()
    items = TimelineItem(many=True)
    total = serializers.IntegerField()
    skip = serializers.IntegerField()
    limit = serializers.IntegerField()
    has_more = serializers.BooleanField()
    kind = serializers.CharField(allow_null=True)


class MatrixEntry(CheckEntry):
    """A row of the validation matrix."""

    check = serializers.ChoiceField(source="name", choices=MatrixRow.values)
    automatic = serializers.SerializerMethodField(help_text="Whether the portal runs this check itself.")

    class Meta(CheckEntry.Meta):
        fields = ["check", "title", "automatic", "status", "detail", "evidence", "checked_by", "note", "checked_at"]

    def get_automatic(self, check: UpgradeCheck) -> bool:
        return check.name in AUTOMATIC


class Matrix(serializers.Serializer[Any]):
    """The validation of an upgrade. `probes_until`: the end of the portal's own checks; null if none are running."""

    upgrade_id = serializers.CharField()
    upgrade_status = serializers.ChoiceField(choices=[s.value for s in UPGRADE_STATUSES])
    organization = serializers.CharField()
    validation = serializers.ChoiceField(choices=Validation.values)
    probes_until = UtcDateTimeField(allow_null=True)
    checks = MatrixEntry(many=True)


def matrix_record(upgrade: Upgrade) -> dict[str, Any]:
    run = find_validation_run(upgrade)
    return dict(
        Matrix(
            {
                "upgrade_id": upgrade.upgrade_id,
                "upgrade_status": upgrade.status,
                "organization": upgrade.organization.slug,
                "validation": upgrade.validation,
                "probes_until": run.ends_at if run and not run.is_done else None,
                "checks": get_matrix_rows(upgrade),
            }
        ).data
    )


class EvidenceService(ServiceEntry):
    """The rollout of one service: the requested version, what ran before and after by digest, and how it ended.

    Decisions at pauses are in the timeline and in the audit trail.
    """

    stopped_tasks = serializers.SerializerMethodField()

    class Meta:
        model = Rollout
        fields = [
            *(name for name in ServiceEntry.Meta.fields if name != "decision"),
            "wanted_version",
            "wanted_image",
            "wanted_task_definition",
            "from_digest",
            "to_digest",
            "service_deployment_arn",
            "attribution_note",
            "attempts",
            "stopped_tasks",
        ]
        read_only_fields = fields

    def get_stopped_tasks(self, rollout: Rollout) -> list[dict[str, Any]]:
        """Return id, stopped_at, reason and exit_code, newest first. The previous release wrote times without `Z`."""
        return [{**task, "stopped_at": as_utc(task["stopped_at"])} for task in rollout.stopped_tasks]


def as_utc(at: str | None) -> str | None:
    return utc(datetime.fromisoformat(at)) if at else None


class EvidenceRequest(serializers.ModelSerializer[Upgrade]):
    """What was requested, and in which cluster and region."""

    service = serializers.ChoiceField(source="target", choices=TARGETS)
    rolls_back = serializers.CharField(source="rolls_back.upgrade_id", allow_null=True)
    requested_at = UtcDateTimeField(source="created_at")
    started_at = UtcDateTimeField(allow_null=True)
    completed_at = UtcDateTimeField(allow_null=True)

    class Meta:
        model = Upgrade
        fields = [
            "service",
            "version",
            "force_new_deployment",
            "reason",
            "rolls_back",
            "cluster",
            "region",
            "estimated_seconds",
            "requested_at",
            "started_at",
            "completed_at",
        ]
        read_only_fields = fields


class EvidenceStop(serializers.Serializer[Any]):
    """The request to stop the upgrade."""

    requested_by = serializers.CharField(source="stop_requested_by.email")
    requested_at = UtcDateTimeField(source="stop_requested_at")


class EvidencePlace(serializers.Serializer[Any]):
    """The organization. `environment` is the one at the trigger, if pre-flight recorded it."""

    slug = serializers.CharField()
    name = serializers.CharField()
    environment = serializers.CharField()


class EvidenceAudit(serializers.ModelSerializer[AuditEvent]):
    """An entry of the audit trail about the upgrade."""

    actor = serializers.CharField(source="actor_email")
    created_at = UtcDateTimeField()

    class Meta:
        model = AuditEvent
        fields = ["id", "kind", "actor", "data", "request_id", "created_at"]
        read_only_fields = fields


class EvidenceFacts(serializers.Serializer[Any]):
    """Everything about one upgrade. `timeline` and `audit` are oldest first."""

    upgrade_id = serializers.CharField()
    organization = EvidencePlace()
    kind = serializers.ChoiceField(choices=Kind.values)
    status = serializers.ChoiceField(choices=[s.value for s in UPGRADE_STATUSES])
    validation = serializers.ChoiceField(choices=Validation.values)
    message = serializers.CharField()
    actor = serializers.CharField()
    request = EvidenceRequest()
    stop = EvidenceStop(allow_null=True)
    override_reason = serializers.CharField(allow_null=True)
    preflight = CheckEntry(many=True)
    services = EvidenceService(many=True)
    checks = MatrixEntry(many=True, help_text="The validation matrix.")
    rollbacks = serializers.ListField(
        child=serializers.CharField(), help_text="Ids of the upgrades that rolled this one back."
    )
    timeline = TimelineItem(many=True)
    audit = EvidenceAudit(many=True)


class Evidence(EvidenceFacts):
    """The evidence document: the facts, when it was generated, and its checksum."""

    generated_at = serializers.CharField()
    sha256 = serializers.CharField(
        help_text="Checksum of the document as canonical JSON (keys sorted, no spaces, UTF-8), "
        "without `sha256` and `generated_at`."
    )


class AcceptedEntry(serializers.Serializer[Any]):
    """One service of the recorded upgrade."""

    service = serializers.ChoiceField(choices=PlatformService.values)
    service_name = serializers.CharField()
    status = serializers.ChoiceField(choices=[Status.PENDING.value])


class Accepted(serializers.Serializer[Any]):
    """The upgrade as it was recorded. A repeated request with the same `Idempotency-Key` gets the same answer."""

    success = serializers.BooleanField()
    upgrade_id = serializers.CharField()
    status = serializers.ChoiceField(choices=[Status.PENDING.value])
    organization = serializers.CharField()
    services = AcceptedEntry(many=True)
    message = serializers.CharField()
    estimated_time = serializers.CharField()
    estimated_seconds = serializers.IntegerField(allow_null=True)
    status_url = serializers.CharField()


def by_service(child: type[serializers.Field[Any, Any, Any, Any]], **options: Any) -> dict[str, Any]:
    """Return a field for each platform service. Names with a hyphen cannot be declared as class attributes."""
    return {service: child(**options) for service in PlatformService.values}


class CurrentVersions(serializers.Serializer[Any]):
    """The running version of each service; null if it is not known."""

    def get_fields(self) -> dict[str, Any]:
        return by_service(serializers.CharField, allow_null=True)


class Digests(serializers.Serializer[Any]):
    """The digest of the version's image for each service."""

    def get_fields(self) -> dict[str, Any]:
        return by_service(
            serializers.CharField, allow_null=True, help_text="`sha256:...`; null if the service has no such image."
        )


class VersionItem(serializers.Serializer[Any]):
    """One version. If `selection` is `limited`, digests and `pushed_at` are not known."""

    version = serializers.CharField(source="name", help_text="A tag, or the digest of an untagged image.")
    tags = serializers.ListField(child=serializers.CharField(), help_text="Further tags of the same images.")
    digests = Digests()
    pushed_at = UtcDateTimeField(allow_null=True)
    services = serializers.ListField(
        child=serializers.ChoiceField(choices=PlatformService.values), help_text="The services that have this version."
    )
    running = serializers.ListField(
        child=serializers.ChoiceField(choices=PlatformService.values),
        help_text="The services that run this version now.",
    )


class VersionList(serializers.Serializer[Any]):
    """The versions, newest first, and what runs. `message` explains `selection` and what is missing in the list."""

    organization = serializers.CharField()
    versions = VersionItem(many=True)
    current = CurrentVersions()
    selection = serializers.ChoiceField(choices=["available", "limited"])
    message = serializers.CharField()
