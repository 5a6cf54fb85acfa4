"""Finds where a service that is upgraded writes its logs: what its task definition says about its own container.

The overview shows the last error of a failed rollout, and waits for nothing: read_rollout_error.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from portal import soft_cache
from portal.aws import ecs
from portal.aws.bulkhead import begin_shared, call_shared
from portal.aws.credentials import AwsTarget
from portal.aws.errors import AwsError, AwsUnavailable, summarize_error
from portal.cloudwatch.last_error import FAILED_SECONDS, build_key, read_known_errors, read_last_error
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
    source, arn = build_source(rollout), find_revision(rollout)
    if arn is None:
        return replace(source, note=NOT_STARTED)
    try:
        places = read_places(rollout, arn)
    except AwsError as error:
        return replace(source, note=f"The task definition could not be read. {summarize_error(error)}")
    return choose_place(source, places, rollout.service)


def read_rollout_error(rollout: Rollout, failed_at: datetime) -> str | None:
    """Return the last error that a failed rollout's service logged, as `read_last_error` does; None: not read yet.

    Never waits for AWS: a first caller begins the read of the task definition, a later one that of the log.
    """
    source, arn = build_source(rollout), find_revision(rollout)
    known = read_known_errors([(source.key, failed_at)])
    if known:
        return known[0]
    if arn is None:
        return read_last_error(source, failed_at)
    places = read_kept_places(rollout, arn)
    if places is not None:
        return read_last_error(choose_place(source, places, rollout.service), failed_at)
    find = partial(find_places, build_places_key(rollout, arn), source.target, arn)
    find_once = partial(find_or_give_up, build_key(source.key, failed_at), find)
    try:
        begin_shared(source.target, "ecs:DescribeTaskDefinition", f"logs {arn}", find_once)
    except AwsUnavailable:  # AWS is silent
        return ""
    return None


def find_or_give_up(key: str, find: Callable[[], list[ecs.LogPlace]]) -> list[ecs.LogPlace]:
    """Find the places, or keep for FAILED_SECONDS that no error is known. *Raises* AwsError."""
    try:
        return find()
    except AwsError:
        soft_cache.write(key, "", seconds=FAILED_SECONDS)
        raise


def name_source(rollout_id: int) -> str:
    return f"rollout-{rollout_id}"


def build_source(rollout: Rollout) -> Source:
    """Return the source without its log group."""
    return Source(
        key=name_source(rollout.pk),
        target=rollout.upgrade.aws_target,
        cluster=rollout.upgrade.cluster,
        service=rollout.service_name,
        log_group=None,
        stream_prefix="",
        began=(rollout.started_at or rollout.upgrade.created_at) - BEFORE_START,
    )


def find_revision(rollout: Rollout) -> str | None:
    return rollout.task_definition or rollout.previous_task_definition


def choose_place(source: Source, places: list[ecs.LogPlace], service: str) -> Source:
    """Return the source with the log group of the service's own container."""
    own = own_container({place.container: "" for place in places}, service)
    place = next((place for place in places if place.container == own), None)
    if place is None or place.group is None:
        return replace(source, note=NOT_IN_CLOUDWATCH)
    return replace(source, log_group=place.group, stream_prefix=place.stream_prefix)


def read_places(rollout: Rollout, arn: str) -> list[ecs.LogPlace]:
    """Return where the revision's containers log. *Raises* AwsError."""
    kept = read_kept_places(rollout, arn)
    if kept is not None:
        return kept
    target, key = rollout.upgrade.aws_target, build_places_key(rollout, arn)
    return call_shared(target, "ecs:DescribeTaskDefinition", f"logs {arn}", partial(find_places, key, target, arn))


def build_places_key(rollout: Rollout, arn: str) -> str:
    return soft_cache.build_key("log-places", rollout.organization_id, arn)


def read_kept_places(rollout: Rollout, arn: str) -> list[ecs.LogPlace] | None:
    return soft_cache.read_as(build_places_key(rollout, arn), lambda rows: [ecs.LogPlace(*row) for row in rows])


def find_places(key: str, target: AwsTarget, arn: str) -> list[ecs.LogPlace]:
    """Read the revision, and keep where its containers log. *Raises* AwsError."""
    places = ecs.log_places(target, arn)
    rows = [(place.container, place.group, place.stream_prefix) for place in places]
    soft_cache.write(key, rows, seconds=CACHE_SECONDS)
    return places
