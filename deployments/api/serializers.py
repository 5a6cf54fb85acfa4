"""Request bodies, queries and records of the deployment and agent routes.

PostgreSQL makes the records of rows (reads.py). The serializer classes describe their shapes for the schema.
"""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from deployments.commands import DEFAULT_CPU, DEFAULT_MEMORY
from deployments.container_spec import FARGATE_SIZES, MAX_VALUE_LENGTH, MAX_VARIABLES
from deployments.models import Deployment
from deployments.states import EventType, Status
from portal.api.routes import BoundedList, PageQuery, StrictSerializer, StrictString, choice
from portal.cloudwatch.log_lines import LEVELS
from portal.cloudwatch.logs import DEFAULT_LIMIT, MAX_LIMIT, LogLine
from portal.cloudwatch.metrics import MetricPoint
from portal.pagination import MAX_SKIP
from portal.times import normalize_time, utc

Json = dict[str, Any]

MAX_REPLICAS = 1000  # the highest limit that staff can set for an organization


class StrictInteger(serializers.IntegerField):
    """Accepts only JSON integers. Refuses "2", true and 2.5."""

    def to_internal_value(self, data: Any) -> int:
        if isinstance(data, bool) or not isinstance(data, int):
            self.fail("invalid")
        return super().to_internal_value(data)


class UtcQueryField(serializers.DateTimeField):
    """A time in a query: ISO 8601, in UTC unless it has an offset. Its `+` need not be encoded as `%2B`."""

    def to_internal_value(self, data: Any) -> Any:
        return super().to_internal_value(normalize_time(data) if isinstance(data, str) else data)


# The commands check these bounds and say in a sentence what is possible; the schema says them too.


@extend_schema_field({"type": "integer", "minimum": 1, "maximum": MAX_REPLICAS})
class Replicas(StrictInteger):
    """A number of tasks. The organization's limit may be lower."""


@extend_schema_field({"type": "integer", "enum": list(FARGATE_SIZES)})
class Cpu(StrictInteger):
    """CPU units. Which memory goes with them is documented in docs/api.md."""


@extend_schema_field(
    {
        "type": "integer",
        "minimum": min(min(sizes) for sizes in FARGATE_SIZES.values()),
        "maximum": max(max(sizes) for sizes in FARGATE_SIZES.values()),
    }
)
class Memory(StrictInteger):
    """MiB of memory."""


@extend_schema_field(
    {
        "type": "object",
        "maxProperties": MAX_VARIABLES,
        "propertyNames": {"pattern": "^(?!#)[!-<>-~]{1,255}$"},
        "additionalProperties": {"type": "string", "maxLength": MAX_VALUE_LENGTH},
    }
)
class Environment(serializers.DictField):
    """Environment variables: text names with text values."""

    child = StrictString(allow_blank=True, trim_whitespace=False)


# --- requests ---------------------------------------------------------------------------------------------------------


class DeploymentQuery(PageQuery):
    agent_id = serializers.UUIDField(allow_null=True, default=None)
    status = choice(Status.values)
    q = serializers.CharField(max_length=100, allow_null=True, default=None)


class EventQuery(StrictSerializer):
    skip = serializers.IntegerField(min_value=0, max_value=MAX_SKIP, default=0)
    limit = serializers.IntegerField(min_value=1, max_value=MAX_LIMIT, default=DEFAULT_LIMIT)
    event_type = choice(EventType.values)
    status = choice(Status.values)


class RangeQuery(StrictSerializer):
    skip = serializers.IntegerField(
        min_value=0, max_value=MAX_SKIP, default=0, help_text="An offset within what was read. Not with `cursor`."
    )
    limit = serializers.IntegerField(min_value=1, max_value=MAX_LIMIT, default=DEFAULT_LIMIT)
    since = UtcQueryField(allow_null=True, default=None)
    until = UtcQueryField(allow_null=True, default=None)

    def validate(self, attrs: Json) -> Json:
        if attrs["since"] and attrs["until"] and attrs["since"] >= attrs["until"]:
            raise serializers.ValidationError({"since": ["Must be before until."]})
        if attrs["skip"] and attrs.get("cursor"):
            raise serializers.ValidationError({"skip": ["Not together with cursor."]})
        return attrs


class LogQuery(RangeQuery):
    level = choice(LEVELS)
    q = serializers.CharField(max_length=200, allow_null=True, default=None, trim_whitespace=False)
    cursor = serializers.CharField(max_length=200, allow_null=True, default=None)


class MetricQuery(RangeQuery):
    period = serializers.IntegerField(min_value=60, max_value=86400, allow_null=True, default=None)


class CreateBody(StrictSerializer):
    agent_id = serializers.UUIDField()
    replicas = Replicas(default=1)
    version = StrictString(max_length=128, allow_null=True, default=None)


class ScaleBody(StrictSerializer):
    replicas = Replicas()


class AgentQuery(PageQuery):
    q = serializers.CharField(max_length=100, allow_null=True, default=None)


class AgentBody(StrictSerializer):
    name = StrictString(max_length=80)
    image = StrictString(max_length=512)
    cpu = Cpu(default=DEFAULT_CPU)
    memory = Memory(default=DEFAULT_MEMORY)
    description = StrictString(max_length=2000, allow_blank=True, default="")
    environment = Environment(default=dict)
    not_secrets = BoundedList(
        child=StrictString(max_length=255),
        max_length=MAX_VARIABLES,
        default=list,
        help_text="Names of variables that look like secrets and are none. The audit trail records who said so.",
    )


# --- records ----------------------------------------------------------------------------------------------------------


def log_record(line: LogLine, deployment: Deployment) -> Json:
    return {
        "id": line.id,
        "agent_id": str(deployment.agent_id),
        "level": line.level,
        "message": line.message,
        "node_id": line.node_id,
        "timestamp": utc(line.timestamp),
        "extra_data": line.extra_data or None,
    }


def metric_record(point: MetricPoint, deployment: Deployment) -> Json:
    return {
        "timestamp": utc(point.timestamp),
        "agent_id": str(deployment.agent_id),
        "cpu_usage": point.cpu_usage,
        "memory_usage": point.memory_usage,
        "running_replicas": point.running_replicas,
    }


# --- record shapes for the schema -------------------------------------------------------------------------------------


class AgentRecord(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField(allow_blank=True)
    image = serializers.CharField()
    cpu = serializers.IntegerField()
    memory = serializers.IntegerField()
    environment = serializers.DictField(child=serializers.CharField(allow_blank=True))
    status = serializers.ChoiceField(choices=["running", "stopped"])
    created_at = serializers.DateTimeField()


class Envelope(serializers.Serializer[Any]):
    total = serializers.IntegerField()
    skip = serializers.IntegerField()
    limit = serializers.IntegerField()
    has_more = serializers.BooleanField()


class AgentList(Envelope):
    items = AgentRecord(many=True)
    organization = serializers.CharField()
    q = serializers.CharField(allow_null=True)


class DeploymentSummary(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    agent_id = serializers.UUIDField()
    agent_name = serializers.CharField()
    organization = serializers.CharField()
    status = serializers.ChoiceField(choices=Status.values)
    version = serializers.CharField(allow_null=True)
    replicas = serializers.IntegerField()
    running_replicas = serializers.IntegerField()
    node_id = serializers.CharField(allow_null=True)
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)
    error_message = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()


class DeploymentList(Envelope):
    items = DeploymentSummary(many=True)
    organization = serializers.CharField()
    agent_id = serializers.UUIDField(allow_null=True)
    status = serializers.CharField(allow_null=True)
    q = serializers.CharField(allow_null=True)


class EventRecord(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    deployment_id = serializers.UUIDField()
    event_type = serializers.ChoiceField(choices=EventType.values)
    status = serializers.ChoiceField(choices=Status.values)
    node_id = serializers.CharField(allow_null=True)
    error_message = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()
    actor = serializers.CharField()


class DeploymentRecord(DeploymentSummary):
    events = EventRecord(many=True)


class Deployed(serializers.Serializer[Any]):
    deployment_id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=Status.values)


class OfDeployment(serializers.Serializer[Any]):
    deployment_id = serializers.UUIDField()
    deployment_status = serializers.ChoiceField(choices=Status.values)


class EventList(OfDeployment, Envelope):
    items = EventRecord(many=True)
    event_type = serializers.CharField(allow_null=True)
    status = serializers.CharField(allow_null=True)


class LogRecord(serializers.Serializer[Any]):
    id = serializers.CharField()
    agent_id = serializers.UUIDField()
    level = serializers.ChoiceField(choices=LEVELS, allow_null=True)
    message = serializers.CharField(allow_blank=True)
    node_id = serializers.CharField()
    timestamp = serializers.DateTimeField()
    extra_data = serializers.SerializerMethodField()

    @extend_schema_field({"type": ["object", "null"], "additionalProperties": True})
    def get_extra_data(self, line: Json) -> Json | None:
        fields: Json | None = line["extra_data"]
        return fields


class LiveRead(OfDeployment):
    """A response read from AWS. If AWS did not answer, `error` says why and the items are as of `read_at`.

    `error` also says why there can be no log lines: the deployment does not write to CloudWatch Logs.
    """

    skip = serializers.IntegerField()
    limit = serializers.IntegerField()
    has_more = serializers.BooleanField()
    since = serializers.DateTimeField(allow_null=True)
    until = serializers.DateTimeField(allow_null=True)
    read_at = serializers.DateTimeField()
    error = serializers.CharField(allow_null=True)


class LogList(LiveRead):
    items = LogRecord(many=True)
    level = serializers.CharField(allow_null=True)
    q = serializers.CharField(allow_null=True)
    next_cursor = serializers.CharField(allow_null=True)


class MetricRecord(serializers.Serializer[Any]):
    timestamp = serializers.DateTimeField()
    agent_id = serializers.UUIDField()
    cpu_usage = serializers.FloatField(allow_null=True)
    memory_usage = serializers.FloatField(allow_null=True)
    running_replicas = serializers.FloatField(allow_null=True)


class MetricList(LiveRead):
    items = MetricRecord(many=True)
    period_seconds = serializers.IntegerField()
