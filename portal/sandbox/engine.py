"""The rollout engine: the services of all accounts and the operations on them.

Pure Python with an injected clock; independent of Flask, moto and the wire format. Every public method first advances
the services it touches to the current time, so no thread is needed. Errors are `AwsError` with AWS's codes and texts.
"""

import copy
import hashlib
import json
import secrets
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from portal.sandbox import endings, failures, hooks, rollout, scheduler
from portal.sandbox.deployment_configuration import (
    DEFAULT_CONFIGURATION,
    breaker_threshold,
    check_configuration,
    has_alarms,
    merged_configuration,
    strategy_of,
)
from portal.sandbox.errors import AwsError, invalid_parameter, service_not_active, service_not_found
from portal.sandbox.history import inherit, note_counts, record_counts
from portal.sandbox.partitions import partition
from portal.sandbox.records import Deployment, Revision, Service, ServiceDeployment, ServiceKey, Task
from portal.sandbox.stages import serving_revision

# Fields of CreateService and UpdateService: those whose change starts a service deployment, and the others.
# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateService.html
TRIGGERING_FIELDS = (
    "capacityProviderStrategy",
    "launchType",
    "loadBalancers",
    "networkConfiguration",
    "platformVersion",
    "serviceConnectConfiguration",
    "serviceRegistries",
    "volumeConfigurations",
    "vpcLatticeConfigurations",
)
ECHOED_FIELDS = (
    "availabilityZoneRebalancing",
    "deploymentController",
    "enableECSManagedTags",
    "enableExecuteCommand",
    "healthCheckGracePeriodSeconds",
    "placementConstraints",
    "placementStrategy",
    "propagateTags",
    "schedulingStrategy",
)


@dataclass(frozen=True)
class RevisionPlan:
    """What a service revision will run: the full task definition ARN and the values read from it.

    `pull_error` is the CannotPullContainerError that pulling its image will end in, or empty. An image that `crashes`
    starts and exits.
    """

    task_definition: str
    containers: list[dict[str, Any]]
    cpu: str
    memory: str
    pull_error: str = ""
    crashes: bool = False


class Engine:
    """All services by key. `now` is the sandbox clock; `rollout_faults` returns the faults of a deployment that starts."""

    def __init__(self, now: Callable[[], float], rollout_faults: failures.RolloutFaults) -> None:
        self.now = now
        self.rollout_faults = rollout_faults
        self.services: dict[ServiceKey, Service] = {}
        self.ticks = 0
        self._hidden: dict[ServiceKey, tuple[Service | None, float]] = {}

    def clear(self) -> None:
        self.services.clear()
        self._hidden.clear()

    # Reads

    def get(self, key: ServiceKey) -> Service | None:
        """Return the service, advanced to the current time, or None. INACTIVE services are still found."""
        service = self.services.get(key)
        if service:
            self.ticks += rollout.advance(service, self.now(), self.rollout_faults)
        return service

    def read(self, key: ServiceKey) -> Service | None:
        """Return the service as a read shows it: its current state, or an earlier one while a write is hidden."""
        service = self.get(key)
        hidden = self._hidden.get(key)
        if hidden is None:
            return service
        before, until = hidden
        if self.now() < until:
            return before
        del self._hidden[key]
        return service

    def hide_next_write(self, key: ServiceKey, seconds: float) -> None:
        """Let reads show the service's present state for `seconds`, whatever is written meanwhile."""
        self._hidden[key] = (copy.deepcopy(self.get(key)), self.now() + seconds)

    def require(self, key: ServiceKey) -> Service:
        service = self.get(key)
        if service is None:
            raise service_not_found()
        return service

    def require_active(self, key: ServiceKey) -> Service:
        service = self.require(key)
        if service.status != "ACTIVE":
            raise service_not_active()
        return service

    def in_cluster(self, account: str, region: str, cluster: str) -> list[Service]:
        """Return the cluster's services by name, each advanced to the current time."""
        keys = [key for key in self.services if (key.account, key.region, key.cluster) == (account, region, cluster)]
        return [self.require(key) for key in sorted(keys)]

    def all_services(self, cluster: str | None = None) -> Iterator[Service]:
        """Yield the services of every account and region, of all clusters or of those with this name."""
        for key in sorted(key for key in self.services if cluster in (None, key.cluster)):
            yield self.require(key)

    def find_service_deployment(
        self, account: str, region: str, arn: str, *, as_read: bool = True
    ) -> tuple[Service, ServiceDeployment] | None:
        """Return a service deployment by ARN, only within the caller's account and region."""
        parts = arn.split("/")
        if len(parts) != 4 or not arn.startswith(f"arn:{partition(region)}:ecs:{region}:{account}:service-deployment/"):
            return None
        key = ServiceKey(account, region, parts[1], parts[2])
        service = self.read(key) if as_read else self.get(key)
        found = service.find_service_deployment(arn) if service else None
        return (service, found) if service and found else None

    # Writes

    def create_service(
        self, key: ServiceKey, plan: RevisionPlan | None, request: dict[str, Any], *, created_by: str
    ) -> Service:
        """Create the service and start its first service deployment. `request` holds CreateService's parameters.

        Without a plan no deployment starts: an EXTERNAL controller creates task sets, which the local AWS does not have.

        A client token belongs to one request in one cluster. Repeating that request returns the service it created
        (https://docs.aws.amazon.com/AmazonECS/latest/APIReference/ECS_Idempotency.html); any other request is refused.
        """
        existing = self.get(key)
        if existing and existing.status == "DRAINING":
            raise invalid_parameter("Unable to Start a service that is still Draining.")
        service = self.new_service(key, request, created_by=created_by)
        made = existing if existing and existing.status == "ACTIVE" else self._made_with(service)
        if made:
            is_repeated = service.client_token and service.client_token == made.client_token
            if made.key == key and is_repeated and service.request_digest == made.request_digest:
                return made
            raise invalid_parameter("Creation of service was not idempotent.")
        if plan:
            self._start_deployment(service, plan)
        if existing:
            inherit(service, existing, self.now())
        record_counts(service, self.now())
        self.services[key] = service
        return service

    def _made_with(self, service: Service) -> Service | None:
        """Return the service of the same cluster that was created with the same client token, or None."""
        if not service.client_token:
            return None
        place = (service.key.account, service.key.region, service.key.cluster)
        for each in self.services.values():
            is_in_place = (each.key.account, each.key.region, each.key.cluster) == place
            if is_in_place and each.client_token == service.client_token and each.status != "INACTIVE":
                return each
        return None

    def new_service(self, key: ServiceKey, request: dict[str, Any], *, created_by: str) -> Service:
        """Return a new service record that has no deployment yet."""
        now = self.now()
        fields = TRIGGERING_FIELDS + ECHOED_FIELDS
        configuration = merged_configuration(DEFAULT_CONFIGURATION, request.get("deploymentConfiguration"))
        check_configuration(configuration)
        return Service(
            key=key,
            created_at=now,
            advanced_to=now,
            desired=int(request.get("desiredCount") or 0),
            settings={name: request[name] for name in fields if request.get(name) is not None},
            configuration=configuration,
            task_definition="",
            client_token=str(request.get("clientToken") or ""),
            request_digest=hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest(),
            tags=list(request.get("tags") or []),
            created_by=created_by,
        )

    def update_service(self, key: ServiceKey, plan: RevisionPlan | None, request: dict[str, Any]) -> Service:
        """Change the service. Only `forceNewDeployment` or a changed triggering field starts a new service deployment.

        `plan` is set when the call names a task definition or forces a deployment.
        """
        service = self.require_active(key)
        configuration = merged_configuration(service.configuration, request.get("deploymentConfiguration"))
        check_configuration(configuration)
        service.wake(self.now())
        changed = {
            name for name in TRIGGERING_FIELDS if name in request and request[name] != service.settings.get(name)
        }
        for name in TRIGGERING_FIELDS + ECHOED_FIELDS:
            if request.get(name) is not None:
                service.settings[name] = request[name]
        if request.get("desiredCount") is not None:
            service.desired = int(request["desiredCount"])
        service.configuration = configuration
        has_new_definition = plan is not None and plan.task_definition != service.task_definition
        if request.get("forceNewDeployment") or changed or has_new_definition:
            self._start_deployment(service, plan or get_plan(service.revisions[service.primary.revision_arn]))
        return service

    def delete_service(self, key: ServiceKey, *, force: bool) -> Service:
        """Drain the service. It becomes INACTIVE when its tasks have stopped."""
        service = self.require(key)
        if service.status == "INACTIVE":
            raise service_not_found()
        if service.desired > 0 and not force and service.status == "ACTIVE":
            raise invalid_parameter("The service cannot be stopped while it is scaled above 0.")
        if service.status == "ACTIVE":
            now = self.now()
            current = service.open_service_deployment
            if current:
                endings.finish(service, current, now, status="STOPPED", reason="The service was deleted.")
            service.status, service.desired = "DRAINING", 0
            service.wake(now)
            going = [task for task in service.tasks if task.is_live]
            scheduler.stop_tasks(service, going, now, reason="Service deleted")
        return service

    def stop_service_deployment(self, account: str, region: str, arn: str, *, stop_type: str) -> ServiceDeployment:
        """Request a rollback of a running service deployment.

        For the allowed states see https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stop-service-deployment.html.
        """
        if stop_type != "ROLLBACK":
            raise invalid_parameter(f"The stop type {stop_type} is not supported. The valid value is ROLLBACK.")
        service, deployment = self._require_service_deployment(account, region, arn)
        if not deployment.is_open:
            raise AwsError(
                "ConflictException", f"The service deployment is in {deployment.status} and cannot be stopped."
            )
        if deployment.status in ("PENDING", "IN_PROGRESS"):
            deployment.status, deployment.updated_at = "ROLLBACK_REQUESTED", self.now()
            service.wake(self.now())
        return deployment

    def continue_service_deployment(
        self, account: str, region: str, arn: str, *, hook_id: str, action: str
    ) -> ServiceDeployment:
        """Continue or roll back a service deployment that is paused at this hook.

        https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContinueServiceDeployment.html names the errors but
        not when each is raised. Assumed: InvalidParameterException for a hook that does not wait (never existed, an older
        step's, already answered, a Lambda function), ClientException for a service deployment not in IN_PROGRESS.
        """
        if action not in ("CONTINUE", "ROLLBACK"):
            raise invalid_parameter(
                f"The action {action} is not supported. The valid values are CONTINUE and ROLLBACK."
            )
        service, deployment = self._require_service_deployment(account, region, arn)
        if deployment.status != "IN_PROGRESS":
            raise AwsError(
                "ClientException", f"The service deployment is in {deployment.status} and cannot be continued."
            )
        pause = hooks.find_pause(deployment, hook_id)
        if pause is None:
            raise invalid_parameter(f"The lifecycle hook {hook_id} is not a pause hook that awaits an action.")
        now = self.now()
        deployment.updated_at = now
        if action == "ROLLBACK":
            pause["status"], deployment.status = "FAILED", "ROLLBACK_REQUESTED"
        else:
            pause["status"] = "SUCCEEDED"
        service.wake(now)
        return deployment

    def _require_service_deployment(self, account: str, region: str, arn: str) -> tuple[Service, ServiceDeployment]:
        found = self.find_service_deployment(account, region, arn, as_read=False)
        if found is None:
            raise AwsError("ServiceDeploymentNotFoundException", "The service deployment was not found.")
        return found

    def stop_task(self, account: str, region: str, cluster: str, task_id: str, *, reason: str) -> tuple[Service, Task]:
        """Stop one task of a service. The scheduler replaces it."""
        tasks = ((service, task) for service in self.in_cluster(account, region, cluster) for task in service.tasks)
        found = next(((service, task) for service, task in tasks if task.id == task_id), None)
        if found is None:
            raise invalid_parameter("The referenced task was not found.")
        service, task = found
        if task.is_live:
            scheduler.stop_task(task, self.now(), code="UserInitiated", reason=reason)
            service.steady = False
            service.wake(self.now())
        return service, task

    def put_steady(
        self, key: ServiceKey, plan: RevisionPlan, request: dict[str, Any], *, age_seconds: float
    ) -> Service:
        """Create a service directly in a steady state that began `age_seconds` ago.

        It has one COMPLETED deployment and all its tasks running.
        """
        service = self.new_service(key, request, created_by=f"arn:{partition(key.region)}:iam::{key.account}:root")
        now = self.now()
        began = now - age_seconds
        service.created_at = began
        self._start_deployment(service, plan, at=began)
        deployment, current = service.deployments[0], service.service_deployments[0]
        current.status, current.started_at = "IN_PROGRESS", began
        for _ in range(service.desired):
            task = scheduler.new_task(deployment, now=began, next_at=None)
            task.status, task.healthy = "RUNNING", True
            task.pull_started_at, task.started_at = began + 2, began + 7
            service.tasks.append(task)
        endings.complete(service, deployment, min(now, began + 20))
        scheduler.add_event(service, min(now, began + 20), "has reached a steady state.")
        note_counts(service, began, service.desired, 0, service.desired)
        note_counts(service, min(now, began + 7), service.desired, service.desired, 0)
        service.steady, service.needs_tick, service.advanced_to = True, False, now
        self.services[key] = service
        return service

    def _start_deployment(self, service: Service, plan: RevisionPlan, *, at: float | None = None) -> None:
        """Start a service deployment with a new revision and a new PRIMARY deployment. A running one is superseded."""
        now = self.now() if at is None else at
        revision = self._new_revision(service, plan, now)
        sources = list(dict.fromkeys(task.revision_arn for task in service.tasks if task.is_live))
        serving = serving_revision(service)
        supersede(service, now)
        breaker = service.configuration.get("deploymentCircuitBreaker") or {}
        # API_DeploymentConfiguration: the breaker "can only be used for services using the rolling update".
        is_rolling = strategy_of(service.configuration) == "ROLLING"
        faults = self.rollout_faults(service.key, False)
        current = ServiceDeployment(
            arn=f"{service.key.prefix}:service-deployment/{service.key.cluster}/{service.key.name}/{new_short_id()}",
            created_at=now,
            updated_at=now,
            target_revision_arn=revision.arn,
            source_revision_arns=sources,
            configuration=service.configuration,
            serving_revision_arn=serving,
            threshold=breaker_threshold(service.configuration, service.desired),
            breaker_status="MONITORING" if breaker.get("enable") and is_rolling else "DISABLED",
            alarm_status="MONITORING" if has_alarms(service.configuration) else "DISABLED",
        )
        service.service_deployments.insert(0, current)
        deployment = Deployment(
            id=rollout.new_deployment_id(),
            service_deployment_arn=current.arn,
            revision_arn=revision.arn,
            created_at=now,
            updated_at=now,
            faults=faults,
        )
        deployment.rollout_state_reason = f"ECS deployment {deployment.id} in progress."
        failures.add_deployment(service, deployment)
        service.wake(now)

    def _new_revision(self, service: Service, plan: RevisionPlan, now: float) -> Revision:
        number = secrets.randbelow(9 * 10**18) + 10**18
        revision = Revision(
            arn=f"{service.key.prefix}:service-revision/{service.key.cluster}/{service.key.name}/{number}",
            created_at=now,
            task_definition=plan.task_definition,
            settings={name: service.settings[name] for name in TRIGGERING_FIELDS if name in service.settings},
            containers=plan.containers,
            cpu=plan.cpu,
            memory=plan.memory,
            pull_error=plan.pull_error,
            crashes=plan.crashes,
        )
        service.revisions[revision.arn] = revision
        return revision


def supersede(service: Service, now: float) -> None:
    """End the running service deployment because a new one starts. A rollback in progress counts as failed."""
    current = service.open_service_deployment
    if current is None or current.status == "STOP_REQUESTED":
        return
    if current.status == "ROLLBACK_IN_PROGRESS":
        # The guide lets ROLLBACK_IN_PROGRESS end in ROLLBACK_SUCCESSFUL or ROLLBACK_FAILED only:
        # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-deployment.html
        reason = "The rollback was stopped because a new service deployment was started."
        endings.finish(service, current, now, status="ROLLBACK_FAILED", reason=reason)
        return
    current.status, current.updated_at = "STOP_REQUESTED", now
    current.stop_reason = "Service deployment was stopped because a new service deployment was started."


def get_plan(revision: Revision) -> RevisionPlan:
    return RevisionPlan(
        task_definition=revision.task_definition,
        containers=revision.containers,
        cpu=revision.cpu,
        memory=revision.memory,
        pull_error=revision.pull_error,
        crashes=revision.crashes,
    )


def new_short_id() -> str:
    """Return an id like those of real service deployments: 21 letters, digits, `-` and `_`."""
    return "".join(secrets.choice(string.ascii_letters + string.digits + "-_") for _ in range(21))
