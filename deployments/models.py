"""Agents, their deployments and the deployments' events. commands.py and engine/ write them.

Growing tables are read through indexes that start with the organization or the deployment. Counters replace counting rows:
a trigger keeps `DeploymentCount` (migration 0002), and the statement that inserts an event keeps `events_count` and
`event_counts` (events.py).
"""

import uuid
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any, Self

from django.contrib.postgres.expressions import ArraySubquery
from django.db import models
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce, JSONObject, Lower, Now

from deployments.container_spec import split_image
from deployments.states import LIVE, DesiredState, EventType, Refusal, Status, allowed, find_worst
from portal.aws.credentials import AwsTarget
from portal.cloudwatch.source import Source
from portal.leases import Leased, due
from portal.models import Organization, TenantQuerySet, User
from portal.models.reading import QuicklyRead
from portal.models.revisions import Revised
from portal.request_id import NO_REQUEST

AGENT_NAME_ONCE = "agent_name_once"
EVENTS_IN_RECORD = 20
# The sort orders of a list. The id makes each order total.
SORTS = {
    "-created_at": ("-created_at", "-id"),
    "created_at": ("created_at", "id"),
    "agent": (Lower("agent__name"), "-created_at", "-id"),
    "status": ("status", "-created_at", "-id"),
    "-replicas": ("-replicas", "-created_at", "-id"),
}
NEWEST_FIRST, BY_AGENT = "-created_at", "agent"

NOT_IN_CLOUDWATCH = (
    "This deployment does not write to CloudWatch Logs: the platform's agent service, from which it takes its log "
    "configuration, has no awslogs driver. Look for the lines where its log router sends them."
)


MAX_NUMBER = 2**31 - 1  # of a revision


class AgentQuerySet(TenantQuerySet["Agent"]):
    def with_status(self) -> Self:
        """Annotate `is_live`, so that `status` costs no extra query."""
        live = DeploymentCount.objects.filter(
            organization=models.OuterRef("organization"), agent=models.OuterRef("pk"), status__in=LIVE, count__gt=0
        )
        return self.annotate(is_live=models.Exists(live))

    def with_worst_status(self) -> Self:
        """Annotate what `worst_status` reads. The deployments that count are those of DeploymentQuerySet.current()."""
        of_agent = {"organization": models.OuterRef("organization"), "agent": models.OuterRef("pk")}
        live = DeploymentCount.objects.filter(**of_agent, status__in=LIVE, count__gt=0).values("status")
        newest = Deployment.objects.filter(**of_agent).order_by("-created_at", "-id").values("status")[:1]
        return self.annotate(live_statuses=ArraySubquery(live), newest_status=models.Subquery(newest))

    def for_list(self, organization: Organization | Combinable, *, q: Any = None) -> Self:
        """Return the organization's agents, newest first, with status and organization. `q` is part of the name."""
        found = self.filter(organization=organization)
        if q:
            found = found.filter(name__icontains=q)
        return found.select_related("organization").with_status().order_by("-created_at", "-id")

    def for_detail(self) -> Self:
        return self.select_related("organization").with_status()


class Agent(QuicklyRead):
    """An AI agent that an organization runs. `environment` holds plain values and ARNs of secrets (container_spec.py)."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="agents")
    name = models.CharField(max_length=80)
    description = models.TextField(blank=True)
    image = models.CharField(max_length=512)
    cpu = models.IntegerField(help_text="CPU units; 1024 are one vCPU.")
    memory = models.IntegerField(help_text="MiB.")
    environment = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    is_live: bool  # set by with_status()

    objects = AgentQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [models.Index(fields=["organization", "-created_at", "-id"], name="agent_newest_first")]
        constraints = [models.UniqueConstraint("organization", Lower("name"), name=AGENT_NAME_ONCE)]

    def __str__(self) -> str:
        return self.name

    @property
    def image_parts(self) -> tuple[str, str]:
        return split_image(self.image)

    @property
    def worst_status(self) -> Status:
        """Return the worst status of its live deployments and, if it failed, the newest one. Needs with_worst_status()."""
        statuses = set(self.__dict__["live_statuses"])
        return find_worst(statuses | ({self.__dict__["newest_status"]} & {Status.FAILED}))

    @property
    def status(self) -> str:
        """Return `running` if one of its deployments is live, else `stopped`.

        *Costs* one query unless the row comes from with_status().
        """
        is_live = self.__dict__.get("is_live")
        if is_live is None:
            is_live = DeploymentCount.objects.filter(
                organization_id=self.organization_id, agent=self, status__in=LIVE, count__gt=0
            ).exists()
        return "running" if is_live else "stopped"


class RevisionQuerySet(TenantQuerySet["Revision"]):
    def for_list(self, agent: Agent | Combinable) -> Self:
        """Return the agent's revisions, newest first, as for_detail() does."""
        return self.filter(agent=agent).for_detail().order_by("-number")

    def for_detail(self) -> Self:
        """Add agent, organization, who made it and what it was restored from, and the numbers of live deployments:
        `live_deployments` of those where it is rolled out, `target_deployments` of those that should run it.
        """
        related = self.select_related("agent", "organization", "created_by", "restored_from")
        return related.annotate(
            live_deployments=count_live(live_revision=models.OuterRef("pk")),
            target_deployments=count_live(target_revision=models.OuterRef("pk")),
        )


def find_numbers(revisions: RevisionQuerySet, *numbers: int) -> list["Revision | None"]:
    """Return the revisions with these numbers, None for one that does not exist. *Costs* one query."""
    found = {
        each.number: each for each in revisions.filter(number__in=[each for each in numbers if each <= MAX_NUMBER])
    }
    return [found.get(number) for number in numbers]


class Revision(QuicklyRead):
    """The settings of one deploy of an agent. Only `digest` is ever written later, once; a trigger refuses other changes.

    `environment` holds plain values and ARNs of secrets, as the agent's does. `number` counts from 1 for each agent.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="revisions", db_index=False)
    number = models.IntegerField()
    image = models.CharField(max_length=512)
    digest = models.CharField(max_length=71, null=True, help_text="`sha256:..`; null if no registry has told it.")
    version = models.CharField(max_length=128, null=True)  # null: the image names no tag
    cpu = models.IntegerField()
    memory = models.IntegerField()
    environment = models.JSONField(default=dict)
    restored_from = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="+", db_index=False)
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+", db_index=False)
    created_at = models.DateTimeField(db_default=Now())

    live_deployments: int  # set by for_detail()
    target_deployments: int  # set by for_detail()

    objects = RevisionQuerySet.as_manager()

    class Meta:
        ordering = ["-number"]
        constraints = [models.UniqueConstraint(fields=["agent", "number"], name="revision_number_once")]

    def __str__(self) -> str:
        return f"revision {self.number}"


class DeploymentQuerySet(TenantQuerySet["Deployment"]):
    def current(self, agent: Agent) -> Self:
        """Return the agent's deployments that count now: the live ones, and the newest one if it failed."""
        return self.current_of(agent.organization_id, agent)

    def current_of(self, organization: Any, agent: Any) -> Self:
        """Return the same, of values or placeholders."""
        of_agent = self.filter(organization=organization, agent=agent)
        newest = of_agent.order_by("-created_at", "-id").values("pk")[:1]
        return of_agent.filter(models.Q(status__in=LIVE) | models.Q(pk__in=newest, status=Status.FAILED))

    def matching(self, organization: Organization | Combinable, *, status: Any = None, agent_id: Any = None) -> Self:
        """Filter the organization's deployments. None means no filter. Page them with lists.py."""
        found = self.filter(organization=organization)
        if status:
            found = found.filter(status=status)
        if agent_id:
            found = found.filter(agent_id=agent_id)
        return found

    def for_detail(self) -> Self:
        """Add agent, organization, both revisions and `newest_events` (dicts, newest first, at most EVENTS_IN_RECORD).

        *Costs* one query.
        """
        newest = DeploymentEvent.objects.filter(deployment=models.OuterRef("pk")).order_by("-sequence")
        fields = {name: name for name in EVENT_FIELDS}
        return self.select_related("agent", "organization", "target_revision", "live_revision").annotate(
            newest_events=ArraySubquery(newest.values(json=JSONObject(**fields))[:EVENTS_IN_RECORD])
        )

    def due(self) -> Self:
        return self.filter(due()).order_by("next_check_at", "id")


class Deployment(Revised, Leased):
    """A deployment of an agent as an ECS service.

    Commands write the wanted state. The reconciler (engine/) applies it under a lease and writes what ECS reports.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="deployments")
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="deployments")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.DEPLOYING)
    status_at = models.DateTimeField(db_default=Now(), help_text="When the status last changed.")

    # The desired state. `requested_generation` increases with each change of it; `observed_generation` is the newest one
    # applied to ECS. The columns keep their first names, so that the previous release runs beside this one.
    wanted = models.CharField(max_length=10, choices=DesiredState.choices, default=DesiredState.RUNNING)
    replicas = models.IntegerField()
    request_id = models.CharField(
        max_length=64, default=NO_REQUEST, db_default=NO_REQUEST, help_text="Of the request that last changed it."
    )
    generation = models.IntegerField(default=1, help_text="Increases when a new task definition is needed.")
    requested_generation = models.IntegerField(default=1, db_column="wish")
    observed_generation = models.IntegerField(default=0, db_column="carried_out")

    # The agent's settings at the time of this generation.
    version = models.CharField(max_length=128, null=True)  # null: the image names no tag
    is_version_pinned = models.BooleanField(
        default=False, help_text="The version was chosen for this deployment, not taken from the agent."
    )
    image = models.CharField(max_length=512)
    cpu = models.IntegerField()
    memory = models.IntegerField()
    environment = models.JSONField(default=dict)
    target_revision = models.ForeignKey(
        Revision,
        on_delete=models.PROTECT,
        null=True,
        related_name="deployments",
        help_text="These settings. Null: made by the release before revisions, or deployed outside the portal.",
    )
    live_revision = models.ForeignKey(
        Revision,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        help_text="The newest one that ECS has rolled out completely here.",
    )

    # Where it runs in AWS.
    cluster = models.CharField(max_length=255)
    service_name = models.CharField(max_length=255)
    service_arn = models.CharField(max_length=512, null=True, help_text="Null if never seen.")
    task_definition = models.CharField(max_length=255, null=True)
    task_generation = models.IntegerField(default=0, help_text="The generation of task_definition.")
    applied_generation = models.IntegerField(default=0, help_text="The newest generation applied to ECS.")
    log_group = models.CharField(max_length=512, null=True)
    primary_id = models.CharField(max_length=100, null=True, help_text="Newest PRIMARY (ecs-svc/..).")
    create_called_at = models.DateTimeField(null=True, help_text="When CreateService was last called.")
    applied_at = models.DateTimeField(null=True, help_text="Time of the newest write to ECS.")

    # The state last observed in ECS.
    desired_count = models.IntegerField(null=True)
    running_replicas = models.IntegerField(default=0)
    pending_count = models.IntegerField(default=0)
    failed_tasks = models.IntegerField(default=0)
    node_id = models.CharField(max_length=255, null=True, help_text="The task it runs on.")
    error_message = models.TextField(null=True)
    doubted_at = models.DateTimeField(null=True, help_text="When an unconfirmed outside change was first seen.")
    check_error = models.TextField(null=True, help_text="Why the last read or write failed.")
    last_checked_at = models.DateTimeField(null=True, help_text="When ECS was last read successfully.")
    has_read_slot = models.BooleanField(default=False, help_text="Its next read has a slot in the read budget.")
    watched_until = models.DateTimeField(null=True, help_text="Until when it counts as being viewed.")

    events_count = models.IntegerField(default=0)
    event_counts = models.JSONField(default=dict, help_text="Events by `<type>|<status>`.")
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
    requested_by = models.ForeignKey(
        User,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        help_text="Who asked for the wanted state. Null: asked before this column existed.",
    )
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    newest_events: list[dict[str, Any]]  # set by for_detail()

    objects = DeploymentQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["organization", "-created_at", "-id"], name="deployment_newest_first"),
            models.Index(fields=["organization", "status", "-created_at", "-id"], name="deployment_by_status"),
            models.Index(fields=["organization", "agent", "-created_at", "-id"], name="deployment_by_agent"),
            models.Index(fields=["organization", "-replicas", "-created_at", "-id"], name="deployment_by_replicas"),
            models.Index(
                fields=["next_check_at"], condition=models.Q(next_check_at__isnull=False), name="deployment_due"
            ),
            models.Index(fields=["organization", "cluster", "next_check_at"], name="deployment_by_cluster"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["organization", "service_name"], name="deployment_service_once"),
            models.CheckConstraint(condition=models.Q(status__in=Status.values), name="deployment_status_known"),
            models.CheckConstraint(condition=models.Q(wanted__in=DesiredState.values), name="deployment_wanted_known"),
        ]

    def __str__(self) -> str:
        return self.service_name

    @classmethod
    def unfinished(cls) -> DeploymentQuerySet:
        return cls.objects.filter(next_check_at__isnull=False)

    @property
    def short_id(self) -> str:
        return str(self.id)[:8]

    @property
    def aws_target(self) -> AwsTarget:
        """Return the organization's target, with the place of this deployment and its id in the session of its writes."""
        return replace(self.organization.aws_target, cluster=self.cluster, writer=f"deployment-{self.pk}")

    @property
    def cloudwatch(self) -> Source:
        """Return what is read of CloudWatch for this deployment. The streams of its tasks begin with its service's name."""
        return Source(
            key=str(self.pk),
            target=self.aws_target,
            cluster=self.cluster,
            service=self.service_name,
            log_group=self.log_group,
            stream_prefix=f"{self.service_name}/",
            began=self.created_at,
            note=NOT_IN_CLOUDWATCH if self.create_called_at else None,
        )

    @property
    def is_live(self) -> bool:
        return self.status in LIVE

    @property
    def is_stopping(self) -> bool:
        """Return whether a stop was requested and ECS still reports tasks."""
        return self.wanted == DesiredState.STOPPED and self.status != Status.STOPPED

    @property
    def is_rolling(self) -> bool:
        """Return whether tasks of one revision are being replaced by those of another."""
        is_wanted = self.wanted == DesiredState.RUNNING and self.status in LIVE | {Status.FAILED}
        return is_wanted and self.live_revision_id is not None and self.live_revision_id != self.target_revision_id

    @property
    def is_settled(self) -> bool:
        """Return whether all changes are applied and none is under way, so that pages can poll slowly."""
        return self.observed_generation == self.requested_generation and self.status not in (
            Status.DEPLOYING,
            Status.RUNNING,
        )

    def refusal(self, command: str) -> Refusal | None:
        """Return why the command is not possible now, or None if it is."""
        return allowed(command, self.status, is_stopping=self.is_stopping)


def count_live(**of_revision: models.OuterRef) -> Coalesce:
    """Return the number of live deployments of a revision, inside of a query of revisions."""
    live = Deployment.objects.filter(status__in=LIVE, **of_revision).order_by().annotate(whole=models.Value(1))
    counted = live.values("whole").annotate(count=models.Count("pk")).values("count")
    return Coalesce(models.Subquery(counted), 0)


class DeploymentCount(models.Model):
    """The number of deployments of an agent in one status. Only a trigger on Deployment writes it."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="+")
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="+")
    status = models.CharField(max_length=10, choices=Status.choices)
    count = models.IntegerField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["organization", "agent", "status"], name="deployment_count_once"),
        ]

    def __str__(self) -> str:
        return f"{self.count} {self.status}"


def count_rows(organization: Any) -> models.QuerySet[Any]:
    """Return status and number of the statuses that deployments of the organization, or of a placeholder, have."""
    counts = DeploymentCount.objects.filter(organization=organization)
    return counts.values_list("status").annotate(total=models.Sum("count")).values_list("status", "total")


def with_every_status(counted: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the number of each status, 0 for those that are not among the counted ones."""
    return dict.fromkeys(Status.values, 0) | dict(counted)


EVENT_FIELDS = (
    "id",
    "sequence",
    "deployment_id",
    "event_type",
    "status",
    "node_id",
    "error_message",
    "created_at",
    "actor",
)


class DeploymentEventQuerySet(models.QuerySet["DeploymentEvent"]):
    def for_timeline(
        self,
        deployment: Deployment | models.OuterRef,
        *,
        event_type: str | None = None,
        status: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Self:
        """Return the deployment's events, newest first. `since` is inclusive, `until` exclusive. None means no filter."""
        found = self.filter(deployment=deployment)
        if event_type:
            found = found.filter(event_type=event_type)
        if status:
            found = found.filter(status=status)
        if since:
            found = found.filter(created_at__gte=since)
        if until:
            found = found.filter(created_at__lt=until)
        return found.order_by("-sequence")


class DeploymentEvent(QuicklyRead):
    """An event of a deployment. `sequence` counts from 1 without gaps and is set by events.record_event."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="events")
    sequence = models.IntegerField()
    event_type = models.CharField(max_length=20, choices=EventType.choices)
    status = models.CharField(max_length=10, choices=Status.choices, help_text="The deployment's status at the time.")
    node_id = models.CharField(max_length=255, null=True)  # null: no node is concerned
    error_message = models.TextField(null=True)
    detail = models.TextField(blank=True, help_text="What changed, for example: from 2 to 3.")
    actor = models.CharField(max_length=254, help_text="E-mail address at the time, `system` or `outside the portal`.")
    created_at = models.DateTimeField()

    objects = DeploymentEventQuerySet.as_manager()

    class Meta:
        ordering = ["-sequence"]
        indexes = [
            models.Index(fields=["deployment", "event_type", "-sequence"], name="event_by_type"),
            models.Index(fields=["deployment", "status", "-sequence"], name="event_by_status"),
            models.Index(fields=["deployment", "-created_at"], name="event_by_time"),
            models.Index(fields=["organization", "-created_at", "-id"], name="event_newest_first"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["deployment", "sequence"], name="event_sequence_once"),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} {self.status}"


class ReadSlot(models.Model):
    """The time of the last reserved DescribeServices call of an AWS account, region and lane (engine/read_budget.py)."""

    account = models.CharField(max_length=12, blank=True, help_text="Empty for the portal's own account.")
    region = models.CharField(max_length=50)
    lane = models.CharField(max_length=10)
    slot_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "region", "lane"], name="read_slot_once")]

    def __str__(self) -> str:
        return f"{self.account} {self.region} {self.lane}"
