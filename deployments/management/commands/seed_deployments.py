"""Creates the demo's agents and deployments. The rows hold what is wanted; the reconciler applies it to the local AWS.

Two run and one is stopped. One has an image that cannot be pulled and one an image that crashes; both end as failed with
ECS's reason. One was killed days ago. They are deploying until the worker has reconciled them.
"""

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from deployments.commands import new_deployment
from deployments.events import record_event
from deployments.models import Agent, Deployment
from deployments.states import SYSTEM, DesiredState, EventType, Status
from portal.aws.partitions import registry_host
from portal.management.past import record_past
from portal.models import AuditKind, Organization, User
from portal.tenancy import all_organizations

REPOSITORY = "demo-agent"
AGENTS_HOURS_AGO = 300
Past = tuple[float, EventType, Status, str, str]


@dataclass(frozen=True)
class Demo:
    """One agent with one deployment. `past` lists its events: hours ago, event, status then, actor, detail."""

    name: str
    description: str
    tag: str
    replicas: int = 1
    size: tuple[int, int] = (256, 512)
    environment: dict[str, str] = field(default_factory=dict)
    status: Status = Status.DEPLOYING
    wanted: DesiredState = DesiredState.RUNNING
    past: tuple[Past, ...] = ()


ACTIVITY = {
    EventType.CREATE: AuditKind.DEPLOYMENT_CREATED,
    EventType.SCALE: AuditKind.DEPLOYMENT_SCALED,
    EventType.STOP: AuditKind.DEPLOYMENT_STOP_REQUESTED,
    EventType.KILL: AuditKind.DEPLOYMENT_KILLED,
}
OPERATOR, ADMIN = "operator@acme.example", "admin@acme.example"
STOPPED_PAST: tuple[Past, ...] = (
    (122.0, EventType.CREATE, Status.DEPLOYING, OPERATOR, "1 of demo-agent:v1.1.0"),
    (121.99, EventType.RUNNING, Status.RUNNING, SYSTEM, ""),
    (121.98, EventType.READY, Status.READY, SYSTEM, ""),
    (75.5, EventType.SCALE, Status.READY, ADMIN, "from 1 to 2"),
    (75.49, EventType.RUNNING, Status.RUNNING, SYSTEM, ""),
    (75.48, EventType.READY, Status.READY, SYSTEM, ""),
    (26.2, EventType.STOP, Status.READY, OPERATOR, ""),
    (26.18, EventType.STOPPED, Status.STOPPED, SYSTEM, ""),
)
KILLED_PAST: tuple[Past, ...] = (
    (200.0, EventType.CREATE, Status.DEPLOYING, ADMIN, "1 of demo-agent:v1.0.0"),
    (199.99, EventType.RUNNING, Status.RUNNING, SYSTEM, ""),
    (199.98, EventType.READY, Status.READY, SYSTEM, ""),
    (150.0, EventType.KILL, Status.KILLED, ADMIN, ""),
)

ACME = [
    Demo("Support agent", "Answers tickets and hands over to people.", "v1.3.0", 2, environment={"LOG_LEVEL": "info"}),
    Demo(
        "Research agent",
        "Reads sources and writes summaries.",
        "v1.2.0",
        3,
        (512, 1024),
        {
            "LOG_LEVEL": "debug",
            "MODEL_KEY": "arn:aws:secretsmanager:eu-central-1:111111111111:secret:acme-prod/model-Ab1",
        },
    ),
    Demo(
        "Invoice agent",
        "Matches invoices with orders at the end of the month.",
        "v1.1.0",
        2,
        status=Status.STOPPED,
        wanted=DesiredState.STOPPED,
        past=STOPPED_PAST,
    ),
    Demo("Release notes agent", "Uses an image that is not in the registry.", "v9.9.9"),
    Demo("Triage agent", "Exits soon after it starts.", "crash", 2),
    Demo(
        "Translation agent",
        "Replaced by the support agent.",
        "v1.0.0",
        status=Status.KILLED,
        wanted=DesiredState.GONE,
        past=KILLED_PAST,
    ),
]
GLOBEX = [Demo("Forecast agent", "Forecasts demand, hour by hour.", "v1.3.0", 2)]


class Command(BaseCommand):
    help = "Create the demo's agents and deployments if there are none. Needs DEMO=1 and seed_organizations."

    @all_organizations("the demo has several")
    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEMO:
            raise CommandError("Made-up deployments belong only in a demo. Set DEMO=1 to create them.")
        for slug, demos, by in (("acme", ACME, OPERATOR), ("globex", GLOBEX, "operator@globex.example")):
            organization = Organization.objects.filter(slug=slug).first()
            if organization is None:
                raise CommandError(f"There is no organization {slug}. Run seed_organizations first.")
            if not Agent.objects.filter(organization=organization).exists():
                for demo in demos:
                    self.make(organization, demo, User.objects.get(email=by))

    def make(self, organization: Organization, demo: Demo, actor: User) -> None:
        role = organization.deployment_role_arn
        account = role.split(":")[4] if role else "111111111111"
        registry = registry_host(account, organization.deployment_region)
        agent = Agent.objects.create(
            organization=organization,
            name=demo.name,
            description=demo.description,
            image=f"{registry}/{REPOSITORY}:{demo.tag}",
            cpu=demo.size[0],
            memory=demo.size[1],
            environment=demo.environment,
            created_at=timezone.now() - timedelta(hours=AGENTS_HOURS_AGO),
        )
        deployment = new_deployment(agent, actor, demo.replicas, None)
        deployment.save(force_insert=True)
        self.make_activity(agent, deployment, demo, actor, timezone.now())
        if not demo.past:
            record_event(deployment, EventType.CREATE, actor=actor.email, detail=f"{demo.replicas} of {agent.image}")
            return
        self.give_past(deployment, demo, timezone.now())

    def give_past(self, deployment: Deployment, demo: Demo, now: datetime) -> None:
        """Write the deployment's past events, and set the row to the state that they led to."""
        node = uuid.uuid4().hex
        for hours, event, status, who, detail in demo.past:
            at = now - timedelta(hours=hours)
            node_id = node if event in (EventType.RUNNING, EventType.READY) else None
            record_event(
                deployment, event, actor=who, status=status.value, node_id=node_id, detail=detail, created_at=at
            )
        began, ended = (now - timedelta(hours=demo.past[index][0]) for index in (0, -1))
        Deployment.objects.filter(pk=deployment.pk).update(
            status=demo.status,
            status_at=ended,
            wanted=demo.wanted,
            created_at=began,
            started_at=began,
            ended_at=ended,
            # A killed deployment has nothing left to reconcile.
            **({"next_check_at": None, "observed_generation": 1} if demo.wanted == DesiredState.GONE else {}),
        )

    def make_activity(self, agent: Agent, deployment: Deployment, demo: Demo, actor: User, now: datetime) -> None:
        """Write the audit rows of the agent and of what people did with its deployment."""
        organization = agent.organization
        past = demo.past or ((0.0, EventType.CREATE, Status.DEPLOYING, actor.email, ""),)
        by = User.objects.get(email=past[0][3])
        named = {"name": agent.name, "image": agent.image}
        record_past(AuditKind.AGENT_CREATED, organization, by, str(agent.pk), at=agent.created_at, data=named)
        for hours, event, _, who, detail in past:
            if event in ACTIVITY:
                at, person = now - timedelta(hours=hours), User.objects.get(email=who)
                data = {"name": agent.name, "service_name": deployment.service_name, "detail": detail}
                record_past(ACTIVITY[event], organization, person, str(deployment.pk), at=at, data=data)
