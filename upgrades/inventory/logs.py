"""Finds where a service that is upgraded writes its logs: what its task definition says about its own container."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

from portal import soft_cache
from portal.aws import ecs
from portal.aws.bulkhead import call_shared
from portal.aws.errors import AwsError, summarize_error
from portal.cloudwatch.source import Source
from upgrades.inventory.images import own_container
from upgrades.models import Rollout

# A task definition never changes.
CACHE_SECONDS = 60 * 60
# The old tasks' last lines explain what the new ones do differently.
BEFORE_START = timedelta(minutes=15)
NOT_STARTED = "No task definition of this rollout is recorded, so its logs cannot be found."
NOT_IN_CLOUDWATCH = (
    "The service's own container does not write to CloudWatch Logs: it has no awslogs driver with a stream prefix. "
    "Look for the lines where its log router sends them."
)


def find_source(rollout: Rollout) -> Source:
    """Return what is read of CloudWatch for the rollout's service. Without a log group, `note` says why.

    *Costs* one DescribeTaskDefinition call an hour and revision. AWS errors are not raised.
    """
    source = Source(
        key=f"rollout-{rollout.pk}",
        target=rollout.upgrade.aws_target,
        cluster=rollout.upgrade.cluster,
        service=rollout.service_name,
        log_group=None,
        stream_prefix="",
        began=(rollout.started_at or rollout.upgrade.created_at) - BEFORE_START,
    )
    arn = rollout.task_definition or rollout.previous_task_definition
    if arn is None:
        return replace(source, note=NOT_STARTED)
    try:
        places = read_places(rollout, arn)
    except AwsError as error:
        return replace(source, note=f"The task definition could not be read. {summarize_error(error)}")
    own = own_container({place.container: "" for place in places}, rollout.service)
    place = next((place for place in places if place.container == own), None)
    if place is None or place.group is None:
        return replace(source, note=NOT_IN_CLOUDWATCH)
    return replace(source, log_group=place.group, stream_prefix=place.stream_prefix)


def read_places(rollout: Rollout, arn: str) -> list[ecs.LogPlace]:
    """Return where the revision's containers log. *Raises* AwsError."""
    key = soft_cache.build_key("log-places", rollout.organization_id, arn)
    kept = soft_cache.read_as(key, lambda rows: [ecs.LogPlace(*row) for row in rows])
    if kept is not None:
        return kept
    target = rollout.upgrade.aws_target
    places = call_shared(target, "ecs:DescribeTaskDefinition", f"logs {arn}", partial(ecs.log_places, target, arn))
    rows = [(place.container, place.group, place.stream_prefix) for place in places]
    soft_cache.write(key, rows, seconds=CACHE_SECONDS)
    return places
