"""Agents, their deployments, and what happened to them. How the columns are kept true is in reconcile.py and commands.py.

Everything that grows is read through an index that begins with its organization or its deployment, and counted by
counters: `DeploymentCount` by a trigger (migration 0002), `events_count` and `event_counts` by the statement that inserts
an event (events.py).
"""

import uuid
from datetime import datetime
from typing import Any, Self

from django.contrib.auth.models import AnonymousUser
from django.contrib.postgres.expressions import ArraySubquery
from django.db import models
from django.db.models.functions import JSONObject, Lower, Now

from deployments.states import LIVE, EventType, Refusal, Status, Wanted, allowed
from portal.leases import Leased, due
from portal.models import Organization, User

AGENT_NAME_ONCE = "agent_name_once"
EVENTS_IN_RECORD = 20
# What a list may be sorted by; each is made total by the id.
SORTS = {
    "-created_at": ("-created_at", "-id"),
    "created_at": ("created_at", "id"),
    "agent": (Lower("agent__name"), "-created_at", "-id"),
    "-agent": (Lower("agent__name").desc(), "-created_at", "-id"),
    "status": ("status", "-created_at", "-id"),
    "-status": ("-status", "-created_at", "-id"),
    "replicas": ("replicas", "-created_at", "-id"),
    "-replicas": ("-replicas", "-created_at", "-id"),
}
NEWEST_FIRST = "-created_at"


class AgentQuerySet(models.QuerySet["Agent"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        return self.filter(organization__in=Organization.objects.visible_to(user))

    def with_status(self) -> Self:
        """With `is_live`, so that `status` costs no query of its own."""
        live = DeploymentCount.objects.filter(
            organization=models.OuterRef("organization"), agent=models.OuterRef("pk"), status__in=LIVE, count__gt=0
        )
        return self.annotate(is_live=models.Exists(live))

    def for_list(self, organization: Organization, *, q: str | None = None) -> Self:
        """The organization's agents, newest first, with status and organization. `q`: part of the name."""
        found = self.filter(organization=organization)
        if q:
            found = found.filter(name__icontains=q)
        return found.select_related("organization").with_status().order_by("-created_at", "-id")

    def for_detail(self) -> Self:
        return self.select_related("organization").with_status()


class Agent(models.Model):
    """An AI agent that an organization runs. `environment` holds plain values, and secrets as ARNs (environment.py)."""

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
    def status(self) -> str:
        """`running` while one of its deployments is live, else `stopped`. One query unless with_status() was asked."""
        is_live = self.__dict__.get("is_live")
        if is_live is None:
            is_live = DeploymentCount.objects.filter(
                organization_id=self.organization_id, agent=self, status__in=LIVE, count__gt=0
            ).exists()
        return "running" if is_live else "stopped"


class DeploymentQuerySet(models.QuerySet["Deployment"]):
    def visible_to(self, user: User | AnonymousUser) -> Self:
        return self.filter(organization__in=Organization.objects.visible_to(user))

    def matching(
        self,
        organization: Organization,
        *,
        status: str | None = None,
        agent_id: uuid.UUID | str | None = None,
        q: str | None = None,
    ) -> Self:
        """The list's filters; None does not filter. `q`: part of the agent's name, or the beginning of the id."""
        found = self.filter(organization=organization)
        if status:
            found = found.filter(status=status)
        if agent_id:
            found = found.filter(agent_id=agent_id)
        if q:
            found = found.filter(models.Q(agent__name__icontains=q) | id_begins_with(q))
        return found

    def for_list(
        self,
        organization: Organization,
        *,
        status: str | None = None,
        agent_id: uuid.UUID | str | None = None,
        q: str | None = None,
        sort: str = NEWEST_FIRST,
    ) -> Self:
        """The organization's deployments: filtered, in a total order, with agent and organization. One query.

        `sort` is a key of SORTS. Page it with lists.deployments_page, which counts without counting rows.
        """
        found = self.matching(organization, status=status, agent_id=agent_id, q=q)
        return found.select_related("agent", "organization").order_by(*SORTS[sort])

    def for_detail(self) -> Self:
        """With agent, organization and `newest_events` (dicts, newest first, EVENTS_IN_RECORD at most). One query."""
        newest = DeploymentEvent.objects.filter(deployment=models.OuterRef("pk")).order_by("-sequence")
        fields = {name: name for name in EVENT_FIELDS}
        return self.select_related("agent", "organization").annotate(
            newest_events=ArraySubquery(newest.values(json=JSONObject(**fields))[:EVENTS_IN_RECORD])
        )

    def due(self) -> Self:
        return self.filter(due()).order_by("next_check_at", "id")


def id_begins_with(text: str) -> models.Q:
    """The ids that begin with these hexadecimal digits: a range, so that the index of the key answers."""
    digits = text.replace("-", "").lower()
    if not digits or len(digits) > 32 or set(digits) - set("0123456789abcdef"):
        return models.Q(pk__in=[])
    return models.Q(pk__range=(uuid.UUID(digits.ljust(32, "0")), uuid.UUID(digits.ljust(32, "f"))))


class Deployment(Leased):
    """One running of an agent as an ECS service.

    Commands write what is wanted; the runtime (reconcile.py) makes it true under a lease and writes what ECS reports.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="deployments")
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="deployments")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.DEPLOYING)
    status_at = models.DateTimeField(db_default=Now(), help_text="Since when it has this status.")

    # What is wanted. `wish` grows with each change of it, `carried_out` is the newest wish that ECS was told.
    wanted = models.CharField(max_length=10, choices=Wanted.choices, default=Wanted.RUNNING)
    replicas = models.IntegerField()
    generation = models.IntegerField(default=1, help_text="Grows when the task definition must be made anew.")
    wish = models.IntegerField(default=1)
    carried_out = models.IntegerField(default=0)

    # What each task of this generation is made of: the agent's, as it was then.
    version = models.CharField(max_length=128, null=True)  # noqa: DJ001 - null: the image names no tag
    is_version_pinned = models.BooleanField(default=False, help_text="The version was chosen, not the agent's own.")
    image = models.CharField(max_length=512)
    cpu = models.IntegerField()
    memory = models.IntegerField()
    environment = models.JSONField(default=dict)

    # Its place in AWS.
    cluster = models.CharField(max_length=255)
    service_name = models.CharField(max_length=255)
    service_arn = models.CharField(max_length=512, null=True, help_text="Null: never seen.")  # noqa: DJ001
    task_definition = models.CharField(max_length=255, null=True)  # noqa: DJ001
    task_generation = models.IntegerField(default=0, help_text="The generation that task_definition is for.")
    applied_generation = models.IntegerField(default=0, help_text="The newest generation that ECS was told.")
    log_group = models.CharField(max_length=512, null=True)  # noqa: DJ001
    primary_id = models.CharField(max_length=100, null=True, help_text="Newest ecs-svc/.. seen.")  # noqa: DJ001
    create_called_at = models.DateTimeField(null=True, help_text="When CreateService may last have been on its way.")
    applied_at = models.DateTimeField(null=True, help_text="The newest write to ECS.")

    # What was last seen of it.
    desired_count = models.IntegerField(null=True)
    running_replicas = models.IntegerField(default=0)
    pending_count = models.IntegerField(default=0)
    failed_tasks = models.IntegerField(default=0)
    node_id = models.CharField(max_length=255, null=True, help_text="The task that it runs on.")  # noqa: DJ001
    error_message = models.TextField(null=True)  # noqa: DJ001
    doubted_at = models.DateTimeField(null=True, help_text="When ECS first said what must be seen twice.")
    check_error = models.TextField(null=True, help_text="Why the newest look or write failed.")  # noqa: DJ001
    last_checked_at = models.DateTimeField(null=True, help_text="The newest look that succeeded.")
    has_read_slot = models.BooleanField(default=False, help_text="Its next look has its place in the budget.")
    watched_until = models.DateTimeField(null=True, help_text="It is on somebody's screen until then.")

    events_count = models.IntegerField(default=0)
    event_counts = models.JSONField(default=dict, help_text="Events by `<type>|<status>`.")
    created_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="+")
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
            models.Index(
                fields=["next_check_at"], condition=models.Q(next_check_at__isnull=False), name="deployment_due"
            ),
            models.Index(fields=["organization", "cluster", "next_check_at"], name="deployment_by_cluster"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["organization", "service_name"], name="deployment_service_once"),
            models.CheckConstraint(condition=models.Q(status__in=Status.values), name="deployment_status_known"),
            models.CheckConstraint(condition=models.Q(wanted__in=Wanted.values), name="deployment_wanted_known"),
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
    def is_live(self) -> bool:
        return self.status in LIVE

    @property
    def is_stopping(self) -> bool:
        """A stop was asked for, and ECS still reports tasks."""
        return self.wanted == Wanted.STOPPED and self.status != Status.STOPPED

    @property
    def is_settled(self) -> bool:
        """ECS was told the newest wish and nothing is on its way: pages need not poll often."""
        return self.carried_out == self.wish and self.status not in (Status.DEPLOYING, Status.RUNNING)

    def refusal(self, command: str) -> Refusal | None:
        """Why the command is not possible now, in the API's words; None when it is."""
        return allowed(command, self.status, is_stopping=self.is_stopping)


class DeploymentCount(models.Model):
    """How many deployments an agent has in a status. Kept by a trigger on Deployment; never written by hand."""

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


def counts_by_status(organization: Organization) -> dict[str, int]:
    """How many deployments the organization has in each status, 0 included. One query over counters."""
    counted = dict(
        DeploymentCount.objects.filter(organization=organization)
        .values_list("status")
        .annotate(total=models.Sum("count"))
        .values_list("status", "total")
    )
    return {status: counted.get(status, 0) for status in Status.values}


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
        deployment: Deployment,
        *,
        event_type: str | None = None,
        status: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Self:
        """The deployment's events, newest first. `since` is included, `until` is not. None does not filter."""
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


class DeploymentEvent(models.Model):
    """Something that happened to a deployment. `sequence` counts from 1 without a gap; events.record_event gives it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="events")
    sequence = models.IntegerField()
    event_type = models.CharField(max_length=20, choices=EventType.choices)
    status = models.CharField(max_length=10, choices=Status.choices, help_text="The deployment's, then.")
    node_id = models.CharField(max_length=255, null=True)  # noqa: DJ001 - null: it happened on no node
    error_message = models.TextField(null=True)  # noqa: DJ001
    detail = models.TextField(blank=True, help_text="What changed, for people: from 2 to 3 replicas.")
    actor = models.CharField(max_length=254, help_text="E-mail as it was then, `system` or `outside the portal`.")
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
    """When the newest reserved DescribeServices call of an AWS account and region takes place (budget.py)."""

    account = models.CharField(max_length=12, blank=True, help_text="Empty: the portal's own.")
    region = models.CharField(max_length=50)
    lane = models.CharField(max_length=10)
    slot_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "region", "lane"], name="read_slot_once")]

    def __str__(self) -> str:
        return f"{self.account} {self.region} {self.lane}"
