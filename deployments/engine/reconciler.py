"""The runtime: claim what is due of one organization's cluster, look at ECS once for all of it, then step by step.

Level-triggered: each turn compares the row with what ECS says now, whatever happened in between. No AWS call is made
inside a transaction. Nothing is lost when a worker dies: its leases run out, and the next turn begins with a look.
"""

import logging
import time

from django.db import DatabaseError

from deployments.engine.read_budget import Work, take_batch
from deployments.engine.steps import note_failure, step
from portal.aws import ecs
from portal.aws.errors import AwsError, AwsMissing
from portal.leases import LeaseLost
from portal.models import Organization

logger = logging.getLogger(__name__)

# A turn ends after so long, within a task's time limit; what it did not come to is due again at once.
TURN_SECONDS = 30


def reconcile(organization_id: str, cluster: str) -> int:
    """One turn: ten deployments at most, one DescribeServices call and the writes that are due. Returns how many rows.

    Safe to call at any time, any number of times, from any process.
    """
    organization = Organization.objects.get(pk=organization_id)
    batch = take_batch(organization, cluster)
    if batch is None:
        return 0
    names = [work.row.service_name for work in batch.works]
    reading: ecs.ServicesReading | None = None
    failure: AwsError | None = None
    try:
        reading = ecs.describe_services(organization.aws_target, cluster, names)
    except AwsError as error:
        logger.warning("cluster %s of %s: %s", cluster, organization.slug, error)
        failure = error
    ends_at = time.monotonic() + TURN_SECONDS
    for work in batch.works:
        if time.monotonic() > ends_at:
            work.let_go()
        else:
            take_step(work, reading, failure)
    return len(batch.works)


def take_step(work: Work, reading: ecs.ServicesReading | None, failure: AwsError | None) -> None:
    """One row's step, or the note that ECS could not be asked; what goes wrong with it stops no other."""
    try:
        try:
            if failure and not (isinstance(failure, AwsMissing) and was_never_there(work)):
                raise failure
            step(work, reading.service(work.row.service_name) if reading else None)
        except AwsError as error:
            note_failure(work, error)
    except LeaseLost:
        logger.info("deployment %s: changed meanwhile, looked at again", work.row.pk)
        work.let_go()
    except DatabaseError:
        raise
    except Exception:
        logger.exception("deployment %s: step failed", work.row.pk)
        work.release(seconds=60, check_error="The portal failed to handle this deployment; its log says why.")


def was_never_there(work: Work) -> bool:
    """No service was ever seen, so a missing cluster is for the create to say. Where one was, it proves nothing: staff
    may just have pointed the organization at another region or account.
    """
    return work.row.service_arn is None
