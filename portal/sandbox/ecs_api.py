"""The ECS actions that the rollout engine answers. Clusters and task definitions are left to moto.

Each action takes the call's parameters and returns the reply's fields, or raises `AwsError`. Parameters are checked by
ECS's rules only, because botocore checks their types before sending.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from portal.sandbox import moto_state, replies, task_definitions
from portal.sandbox.engine import Engine, RevisionPlan
from portal.sandbox.errors import AwsError, invalid_parameter, service_not_found
from portal.sandbox.partitions import partition
from portal.sandbox.protocol import ApiRequest, Environ, Reply, replace_body, short_name
from portal.sandbox.records import Service, ServiceKey, Task

Json = dict[str, Any]

# https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeServices.html and its siblings
CLIENT_TOKEN = re.compile(r"[!-~]{0,36}")
MAX_SERVICES, MAX_SERVICE_DEPLOYMENTS, MAX_REVISIONS, MAX_TASKS = 10, 20, 20, 100


class EcsApi:
    """ECS's actions by name, answered by the engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.actions: dict[str, Callable[[ApiRequest], Json]] = {
            "CreateService": self.create_service,
            "UpdateService": self.update_service,
            "DeleteService": self.delete_service,
            "DescribeServices": self.describe_services,
            "ListServices": self.list_services,
            "ListServiceDeployments": self.list_service_deployments,
            "DescribeServiceDeployments": self.describe_service_deployments,
            "StopServiceDeployment": self.stop_service_deployment,
            "ContinueServiceDeployment": self.continue_service_deployment,
            "DescribeServiceRevisions": self.describe_service_revisions,
            "ListTasks": self.list_tasks,
            "DescribeTasks": self.describe_tasks,
            "StopTask": self.stop_task,
            "ListTaskDefinitions": self.list_task_definitions,
            "DescribeTaskDefinition": self.describe_task_definition,
            "RunTask": self.refuse,
            "StartTask": self.refuse,
        }

    # Services

    def create_service(self, request: ApiRequest) -> Json:
        params = request.params
        name = str(params.get("serviceName") or "")
        if not name:
            raise invalid_parameter("Service name cannot be empty.")
        cluster = self._cluster(request)
        is_external = (params.get("deploymentController") or {}).get("type") == "EXTERNAL"
        if is_external and params.get("taskDefinition"):
            raise invalid_parameter("TaskDefinition must be blank.")
        if not is_external and not params.get("taskDefinition"):
            raise invalid_parameter("TaskDefinition cannot be empty.")
        if params.get("schedulingStrategy") != "DAEMON" and params.get("desiredCount") is None:
            raise invalid_parameter("The desired count should be specified.")
        if not CLIENT_TOKEN.fullmatch(str(params.get("clientToken") or "")):
            raise invalid_parameter("The client token must be up to 36 ASCII characters in the range of 33-126.")
        plan = None if is_external else self._plan(request, str(params["taskDefinition"]))
        key = ServiceKey(request.account, request.region, cluster, name)
        service = self.engine.create_service(key, plan, params, created_by=request.principal)
        return {"service": replies.service_reply(service)}

    def update_service(self, request: ApiRequest) -> Json:
        params = request.params
        key = self._service_key(request)
        service = self.engine.require_active(key)
        refuse_foreign(service.controller, params)
        plan = None
        if params.get("taskDefinition") or params.get("forceNewDeployment"):
            # A forced deployment resolves the images again; this is its purpose.
            plan = self._plan(request, str(params.get("taskDefinition") or service.task_definition))
        return {"service": replies.service_reply(self.engine.update_service(key, plan, params))}

    def delete_service(self, request: ApiRequest) -> Json:
        service = self.engine.delete_service(self._service_key(request), force=bool(request.params.get("force")))
        return {"service": replies.service_reply(service)}

    def describe_services(self, request: ApiRequest) -> Json:
        names = list(request.params.get("services") or [])
        if not names:
            raise invalid_parameter("Services cannot be empty.")
        if len(names) > MAX_SERVICES:
            raise invalid_parameter(f"service names can have at most {MAX_SERVICES} items")
        cluster = self._cluster(request)
        with_tags = "TAGS" in (request.params.get("include") or [])
        found, failures = [], []
        for name in names:
            key = ServiceKey(request.account, request.region, cluster, short_name(name) or "")
            service = self.engine.read(key)
            if service is None:
                failures.append({"arn": key.service_arn, "reason": "MISSING"})
            else:
                found.append(replies.service_reply(service, with_tags=with_tags))
        return {"services": found, "failures": failures}

    def list_services(self, request: ApiRequest) -> Json:
        cluster = self._cluster(request)
        services = self.engine.in_cluster(request.account, request.region, cluster)
        arns = [each.key.service_arn for each in services if each.status != "INACTIVE"]
        page, token = paged(arns, request.params, default=10, most=100)
        return replies.present({"serviceArns": page, "nextToken": token})

    # Service deployments and revisions

    def list_service_deployments(self, request: ApiRequest) -> Json:
        service = self.engine.read(self._service_key(request))
        if service is None or service.status == "INACTIVE":
            raise service_not_found()
        statuses = request.params.get("status") or []
        created = request.params.get("createdAt") or {}
        after, before = epoch(created.get("after")), epoch(created.get("before"))
        found = [
            replies.brief_reply(service, each)
            for each in service.service_deployments
            if service.controller == "ECS"
            and (not statuses or each.status in statuses)
            and (after is None or each.created_at >= after)
            and (before is None or each.created_at <= before)
        ]
        page, token = paged(found, request.params, default=20, most=100)
        return replies.present({"serviceDeployments": page, "nextToken": token})

    def describe_service_deployments(self, request: ApiRequest) -> Json:
        arns = list(request.params.get("serviceDeploymentArns") or [])
        if not arns:
            raise invalid_parameter("serviceDeploymentArns cannot be empty.")
        if len(arns) > MAX_SERVICE_DEPLOYMENTS:
            raise invalid_parameter(f"serviceDeploymentArns can have at most {MAX_SERVICE_DEPLOYMENTS} items")
        found, failures = [], []
        for arn in arns:
            pair = self.engine.find_service_deployment(request.account, request.region, arn)
            if pair is None:
                failures.append({"arn": arn, "reason": "MISSING"})
            else:
                found.append(replies.service_deployment_reply(*pair))
        return {"serviceDeployments": found, "failures": failures}

    def stop_service_deployment(self, request: ApiRequest) -> Json:
        arn = str(request.params.get("serviceDeploymentArn", ""))
        stop_type = str(request.params.get("stopType") or "ROLLBACK")
        self.engine.stop_service_deployment(request.account, request.region, arn, stop_type=stop_type)
        return {"serviceDeploymentArn": arn}

    def continue_service_deployment(self, request: ApiRequest) -> Json:
        params = request.params
        arn = str(params.get("serviceDeploymentArn", ""))
        self.engine.continue_service_deployment(
            request.account,
            request.region,
            arn,
            hook_id=str(params.get("hookId") or ""),
            action=str(params.get("action") or "CONTINUE"),
        )
        return {"serviceDeploymentArn": arn}

    def describe_service_revisions(self, request: ApiRequest) -> Json:
        arns = list(request.params.get("serviceRevisionArns") or [])
        if not arns:
            raise invalid_parameter("serviceRevisionArns cannot be empty.")
        if len(arns) > MAX_REVISIONS:
            raise invalid_parameter(f"serviceRevisionArns can have at most {MAX_REVISIONS} items")
        found, failures = [], []
        for arn in arns:
            parts = str(arn).split("/")
            key = ServiceKey(request.account, request.region, *parts[1:3]) if len(parts) == 4 else None
            service = self.engine.read(key) if key else None
            if service is None or arn not in service.revisions:
                failures.append({"arn": arn, "reason": "MISSING"})
            else:
                found.append(replies.revision_reply(service, service.revisions[arn]))
        return {"serviceRevisions": found, "failures": failures}

    # Tasks

    def list_tasks(self, request: ApiRequest) -> Json:
        params = request.params
        desired_status = params.get("desiredStatus") or "RUNNING"
        arns = [
            replies.task_arn(service, task)
            for service, task in self._tasks(request)
            if desired_status == ("RUNNING" if task.is_live else "STOPPED")
            and params.get("startedBy") in (None, task.deployment_id)
            and params.get("family") in (None, get_family(service, task))
        ]
        page, token = paged(arns, params, default=100, most=100)
        return replies.present({"taskArns": page, "nextToken": token})

    def describe_tasks(self, request: ApiRequest) -> Json:
        names = list(request.params.get("tasks") or [])
        if not names:
            raise invalid_parameter("Tasks cannot be empty.")
        if len(names) > MAX_TASKS:
            raise invalid_parameter(f"Tasks can have at most {MAX_TASKS} items")
        cluster = self._cluster(request)
        known = {task.id: (service, task) for service, task in self._tasks(request, all_services=True)}
        found, failures = [], []
        for name in names:
            pair = known.get(short_name(name) or "")
            if pair is None:
                place = f"{request.region}:{request.account}"
                arn = f"arn:{partition(request.region)}:ecs:{place}:task/{cluster}/{short_name(name)}"
                failures.append({"arn": arn, "reason": "MISSING"})
            else:
                found.append(replies.task_reply(*pair))
        return {"tasks": found, "failures": failures}

    def stop_task(self, request: ApiRequest) -> Json:
        cluster = self._cluster(request)
        reason = str(request.params.get("reason") or "Task stopped by user")
        task_id = short_name(request.params.get("task")) or ""
        service, task = self.engine.stop_task(request.account, request.region, cluster, task_id, reason=reason)
        return {"task": replies.task_reply(service, task)}

    def refuse(self, request: ApiRequest) -> Json:
        raise AwsError(
            "UnsupportedFeatureException", f"The local AWS does not support {request.action}, only services."
        )

    # Task definitions

    def list_task_definitions(self, request: ApiRequest) -> Json:
        params = request.params
        arns = moto_state.task_definition_arns(
            request.account, request.region, family=params.get("familyPrefix"), status=params.get("status") or "ACTIVE"
        )
        if params.get("sort") == "DESC":
            arns.reverse()
        page, token = paged(arns, params, default=100, most=100)
        return replies.present({"taskDefinitionArns": page, "nextToken": token})

    def describe_task_definition(self, request: ApiRequest) -> Json:
        name = str(request.params.get("taskDefinition") or "")
        definition = moto_state.known_task_definition(request.account, request.region, name)
        if definition is None:
            raise AwsError("ClientException", "Unable to describe task definition.")
        described = moto_state.describe_task_definition(definition)
        described["requiresAttributes"] = task_definitions.requires_attributes(described)
        tags = {"tags": definition.tags} if "TAGS" in (request.params.get("include") or []) else {}
        return {"taskDefinition": described, **tags}

    # Handled by moto

    def prepare_for_moto(self, request: ApiRequest, environ: Environ) -> None:
        """Update moto's clusters and the request, so that moto's own actions see the engine's state."""
        if request.action in ("DescribeClusters", "DeleteCluster"):
            for name in request.params.get("clusters") or [request.params.get("cluster") or "default"]:
                self._count_cluster(request, short_name(name) or "default")
        if request.action == "RegisterTaskDefinition":
            replace_body(environ, task_definitions.registered(request.params))

    def after_moto(self, request: ApiRequest, reply: Reply) -> Reply:
        """Add the fields that moto does not keep to its reply about one task definition."""
        document = json.loads(reply.body)
        described = document.get("taskDefinition")
        if not described:
            return reply
        definition = moto_state.known_task_definition(request.account, request.region, described["taskDefinitionArn"])
        if definition is None:
            return reply
        if request.action == "RegisterTaskDefinition":
            dropped = {
                name: request.params[name]
                for name in task_definitions.DROPPED_FIELDS
                if request.params.get(name) is not None
            }
            own = {"registeredAt": self.engine.now(), "registeredBy": request.principal}
            moto_state.store_extra_fields(definition, {**dropped, **own})
        if request.action == "DeregisterTaskDefinition":
            moto_state.store_extra_fields(definition, {"deregisteredAt": self.engine.now()})
        described |= moto_state.get_extra_fields(definition)
        described["requiresAttributes"] = task_definitions.requires_attributes(described)
        return Reply(reply.status, reply.headers, json.dumps(document).encode())

    def _count_cluster(self, request: ApiRequest, name: str) -> None:
        cluster = moto_state.find_cluster(request.account, request.region, name)
        if cluster is None:
            return
        services = self.engine.in_cluster(request.account, request.region, name)
        active = sum(each.status == "ACTIVE" for each in services)
        if request.action == "DeleteCluster" and active:
            raise AwsError(
                "ClusterContainsServicesException", "The Cluster cannot be deleted while Services are active."
            )
        moto_state.set_cluster_counts(
            cluster,
            services=active,
            running=sum(task.is_running for each in services for task in each.tasks),
            pending=sum(task.is_pending for each in services for task in each.tasks),
        )

    # Shared

    def _cluster(self, request: ApiRequest) -> str:
        name = short_name(request.params.get("cluster")) or "default"
        cluster = moto_state.find_cluster(request.account, request.region, name)
        if cluster is None:
            raise AwsError("ClusterNotFoundException", "Cluster not found.")
        if cluster.status != "ACTIVE" and not request.is_read:
            raise invalid_parameter("The cluster is inactive.")
        return name

    def _service_key(self, request: ApiRequest) -> ServiceKey:
        cluster = self._cluster(request)
        return ServiceKey(request.account, request.region, cluster, short_name(request.params.get("service")) or "")

    def _plan(self, request: ApiRequest, name: str) -> RevisionPlan:
        return moto_state.plan_revision(request.account, request.region, name)

    def _tasks(self, request: ApiRequest, *, all_services: bool = False) -> list[tuple[Service, Task]]:
        cluster = self._cluster(request)
        name = None if all_services else short_name(request.params.get("serviceName"))
        if name is None:
            services = self.engine.in_cluster(request.account, request.region, cluster)
        else:
            service = self.engine.read(ServiceKey(request.account, request.region, cluster, name))
            if service is None:
                raise service_not_found()
            services = [service]
        return [(service, task) for service in services for task in service.tasks]


def refuse_foreign(controller: str, params: Json) -> None:
    """Raise InvalidParameterException for changes that only the service's own controller may make.

    For what each controller allows see https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateService.html.
    """
    if controller == "ECS":
        return
    use = " Use AWS CodeDeploy to trigger a new deployment." if controller == "CODE_DEPLOY" else ""
    if params.get("taskDefinition"):
        what = "Unable to update task definition"
    elif params.get("forceNewDeployment"):
        what = "Cannot force a new deployment"
    elif params.get("networkConfiguration") and controller == "CODE_DEPLOY":
        what = "Unable to update network parameters"
    else:
        return
    raise invalid_parameter(f"{what} on services with a {controller} deployment controller.{use}")


def get_family(service: Service, task: Task) -> str:
    return service.revisions[task.revision_arn].task_definition.rsplit("/", 1)[-1].partition(":")[0]


def epoch(value: Any) -> float | None:
    """Parse a JSON 1.1 timestamp: seconds since the epoch, or ISO 8601 text."""
    if value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    moment = datetime.fromisoformat(str(value))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def paged(items: list[Any], params: Json, *, default: int, most: int) -> tuple[list[Any], str | None]:
    """Return one page and the opaque token of the next one, or None after the last page."""
    size = params.get("maxResults") or default
    if not 1 <= int(size) <= most:
        raise invalid_parameter(f"maxResults must be between 1 and {most}, not {size}.")
    start = 0
    if params.get("nextToken"):
        try:
            start = int(base64.b64decode(str(params["nextToken"]), validate=True).decode())
        except (binascii.Error, ValueError) as error:
            raise invalid_parameter("Invalid token.") from error
    end = start + int(size)
    token = base64.b64encode(str(end).encode()).decode() if end < len(items) else None
    return items[start:end], token
