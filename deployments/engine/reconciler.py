"""The reconciler: claims the due deployments of one cluster, reads ECS once for all, then takes one step for each.

Level-triggered: each turn compares the row with the current state in ECS, whatever happened in between. No AWS call is made
inside a transaction. Nothing is lost when a worker dies: its leases expire, and the next turn starts by reading ECS.
"""

import logging
import time
from uuid import UUID

from deployments.engine.read_budget import DeploymentLease, claim_batch
from deployments.engine.steps import record_failure, step
from portal.aws import ecs
from portal.aws.errors import AwsError, AwsMissing
from portal.leases import kept, run_guarded
from portal.models import Organization
from portal.request_id import carrying
from portal.tenancy import organizations

logger = logging.getLogger(__name__)

# A turn ends after this long, within the task's time limit. Rows that it did not reach become due immediately.
TURN_SECONDS = 30


def reconcile(organization_id: str, cluster: str) -> int:
    """Take one turn: at most ten deployments, one DescribeServices call and the writes that are due.

    Safe to call at any time, any number of times, from any process.

    *Returns* the number of rows claimed.
    """
    with organizations(UUID(str(organization_id))):
        organization = Organization.objects.get(pk=organization_id)
        leases = claim_batch(organization, cluster)
        if leases:
            with kept(*leases):
                take_turn(organization, cluster, leases)
        return len(leases)


def take_turn(organization: Organization, cluster: str, leases: list[DeploymentLease]) -> None:
    names = [lease.row.service_name for lease in leases]
    reading: ecs.ServicesReading | None = None
    failure: AwsError | None = None
    try:
        reading = ecs.describe_services(organization.aws_target, cluster, names)
    except AwsError as error:
        logger.warning("cluster %s of %s: %s", cluster, organization.slug, error)
        failure = error
    ends_at = time.monotonic() + TURN_SECONDS
    for lease in leases:
        if time.monotonic() > ends_at:
            lease.discard()
        else:
            with carrying(lease.row.request_id):
                run_step(lease, reading, failure)


def run_step(lease: DeploymentLease, reading: ecs.ServicesReading | None, failure: AwsError | None) -> None:
    """Take the step of one row, or record that ECS could not be read. A failure does not stop the other rows."""

    def take_step() -> None:
        try:
            if failure and not (isinstance(failure, AwsMissing) and was_never_created(lease)):
                raise failure
            step(lease, reading.service(lease.row.service_name) if reading else None)
        except AwsError as error:
            record_failure(lease, error)

    crash = "The portal failed to process this deployment. See the portal's log for the cause."
    if not run_guarded(
        f"deployment {lease.row.pk}",
        take_step,
        record_crash=lambda: lease.release(seconds=60, check_error=crash),
    ):
        lease.discard()


def was_never_created(lease: DeploymentLease) -> bool:
    """Return whether no service was ever seen, so that a missing cluster is a failure of the create.

    If a service was seen before, a missing cluster proves nothing: staff may have changed the organization's region or
    account.
    """
    return lease.row.service_arn is None
