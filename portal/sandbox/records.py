"""The rollout engine's records of services, deployments, revisions and tasks.

Plain data without rules, saved as JSON (`dump_service`, `load_service`). Times are in seconds since the epoch.
"""

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from portal.sandbox.partitions import partition

RUNNING_STAGES = ("PROVISIONING", "PENDING", "RUNNING")

OPEN_STATUSES = ("PENDING", "IN_PROGRESS", "STOP_REQUESTED", "ROLLBACK_REQUESTED", "ROLLBACK_IN_PROGRESS")


@dataclass(frozen=True, order=True)
class ServiceKey:
    """One service in one account, region and cluster."""

    account: str
    region: str
    cluster: str
    name: str

    @property
    def prefix(self) -> str:
        return f"arn:{partition(self.region)}:ecs:{self.region}:{self.account}"

    @property
    def cluster_arn(self) -> str:
        return f"{self.prefix}:cluster/{self.cluster}"

    @property
    def service_arn(self) -> str:
        return f"{self.prefix}:service/{self.cluster}/{self.name}"


@dataclass
class Task:
    """One task of a service. `next_at` is the time of its next automatic step, or None if it has none."""

    id: str
    deployment_id: str
    revision_arn: str
    created_at: float
    status: str = "PROVISIONING"
    healthy: bool = False
    next_at: float | None = None
    pull_started_at: float | None = None
    started_at: float | None = None
    stopping_at: float | None = None
    stopped_at: float | None = None
    stop_code: str = ""
    stopped_reason: str = ""
    exit_code: int | None = None  # of the containers that were stopped
    exit_codes: dict[str, int] = field(default_factory=dict)  # of those that exited by themselves, by name
    container_reason: str = ""
    private_ip: str = "10.0.1.10"
    logs_lost: bool = False  # its log stream was deleted

    @property
    def is_live(self) -> bool:
        """Return whether the scheduler counts the task: it is starting or running, but not stopping."""
        return self.status in RUNNING_STAGES

    @property
    def is_running(self) -> bool:
        return self.status == "RUNNING"

    @property
    def is_pending(self) -> bool:
        return self.status in ("PROVISIONING", "PENDING")


@dataclass
class Revision:
    """A service revision: what one service deployment runs. `settings` are the fields that define it."""

    arn: str
    created_at: float
    task_definition: str
    settings: dict[str, Any]
    containers: list[dict[str, Any]]
    cpu: str = "256"
    memory: str = "512"
    pull_error: str = ""
    crashes: bool = False


@dataclass
class Deployment:
    """One entry of `service.deployments`, which is sorted newest first. `id` is `ecs-svc/<number>`."""

    id: str
    service_deployment_arn: str
    revision_arn: str
    created_at: float
    updated_at: float
    status: str = "PRIMARY"
    rollout_state: str = "IN_PROGRESS"
    rollout_state_reason: str = ""
    failed_tasks: int = 0
    is_rollback: bool = False
    faults: list[dict[str, Any]] = field(default_factory=list)
    launch_after: float = 0.0
    first_running_at: float | None = None
    steady_since: float | None = None


@dataclass
class ServiceDeployment:
    """One service deployment, as DescribeServiceDeployments returns it."""

    arn: str
    created_at: float
    updated_at: float
    target_revision_arn: str
    source_revision_arns: list[str]
    configuration: dict[str, Any]
    status: str = "PENDING"
    status_reason: str = ""
    stop_reason: str = ""
    lifecycle_stage: str = "RECONCILE_SERVICE"
    stage_since: float = 0.0
    step: int = 0  # of the shifts of production traffic, from 0
    production_weight: float = 0.0  # of the target revision, in percent; the serving one has the rest
    test_weight: float = 0.0
    serving_revision_arn: str = ""  # that served production when this began
    hooks: list[dict[str, Any]] = field(default_factory=list)  # of the current stage, as the API shows them
    hooks_started_at: float = 0.0
    started_at: float | None = None
    finished_at: float | None = None
    stopped_at: float | None = None
    failure_count: int = 0
    threshold: int = 3
    breaker_status: str = "MONITORING"
    alarm_status: str = "DISABLED"
    triggered_alarms: list[str] = field(default_factory=list)
    rollback: dict[str, Any] | None = None
    final_counts: dict[str, list[int]] = field(default_factory=dict)

    @property
    def shifts_traffic(self) -> bool:
        """Return whether both revisions run side by side until all traffic has moved: every strategy but ROLLING."""
        return bool(self.configuration.get("strategy", "ROLLING") != "ROLLING")

    @property
    def is_open(self) -> bool:
        return self.status in OPEN_STATUSES


@dataclass
class Event:
    id: str
    created_at: float
    message: str


class Counts(NamedTuple):
    """A service's task counts from `at` on. A tuple, because it is saved as a JSON list."""

    at: float
    desired: float
    running: float
    pending: float


@dataclass
class Service:
    """One service with all its data. `settings` holds the request's fields that the engine does not interpret."""

    key: ServiceKey
    created_at: float
    desired: int
    settings: dict[str, Any]
    configuration: dict[str, Any]
    task_definition: str
    status: str = "ACTIVE"
    client_token: str = ""
    request_digest: str = ""  # of the CreateService call, for its client token
    tags: list[dict[str, str]] = field(default_factory=list)
    created_by: str = ""
    advanced_to: float = 0.0
    steady: bool = False
    needs_tick: bool = True
    changes: int = 0  # incremented by every tick and call that may have changed something
    next_place_event_at: float = 0.0
    deployments: list[Deployment] = field(default_factory=list)
    service_deployments: list[ServiceDeployment] = field(default_factory=list)
    revisions: dict[str, Revision] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    completed: list[list[str]] = field(default_factory=list)  # [revision ARN, deployment id], oldest first
    past_tasks: list[Task] = field(default_factory=list)  # those that ECS no longer lists, kept for their logs
    counts: list[Counts] = field(default_factory=list)  # oldest first

    @property
    def controller(self) -> str:
        """Return the deployment controller. If it is not ECS, the tasks are shown as a task set without deployments."""
        return str((self.settings.get("deploymentController") or {}).get("type") or "ECS")

    @property
    def primary(self) -> Deployment:
        return self.deployments[0]

    @property
    def open_service_deployment(self) -> ServiceDeployment | None:
        newest = self.service_deployments[0] if self.service_deployments else None
        return newest if newest and newest.is_open else None

    def wake(self, now: float) -> None:
        """Let the next tick process this service. Call it after every change that does not come from a tick."""
        self.needs_tick = True
        self.changes += 1
        self.advanced_to = max(self.advanced_to, now)

    def find_service_deployment(self, arn: str) -> ServiceDeployment | None:
        return next((each for each in self.service_deployments if each.arn == arn), None)

    def tasks_for(self, deployment_id: str) -> list[Task]:
        """Return the tasks of one deployment that have not stopped."""
        return [task for task in self.tasks if task.deployment_id == deployment_id and task.status != "STOPPED"]


def dump_service(service: Service) -> str:
    """Return a service as JSON text, without `asdict`, which would copy everything first."""
    return json.dumps(service, default=vars)


def load_service(state: dict[str, Any]) -> Service:
    """Return the service written by `dump_service`. Raises TypeError or KeyError if another version wrote it."""
    state = dict(state)
    return Service(
        key=ServiceKey(**state.pop("key")),
        deployments=[Deployment(**each) for each in state.pop("deployments")],
        service_deployments=[ServiceDeployment(**each) for each in state.pop("service_deployments")],
        revisions={arn: Revision(**each) for arn, each in state.pop("revisions").items()},
        tasks=[Task(**each) for each in state.pop("tasks")],
        past_tasks=[Task(**each) for each in state.pop("past_tasks", [])],
        events=[Event(**each) for each in state.pop("events")],
        counts=[Counts(*each) for each in state.pop("counts", [])],
        **state,
    )
