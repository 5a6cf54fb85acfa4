"""Schedules the next ECS read of a deployment: often while it changes or is viewed, otherwise within a read budget.

One DescribeServices call reads ten services of one cluster. Calls for steady deployments take slots. Each AWS account and
region has slightly fewer than DEPLOYMENTS_READS_PER_MINUTE slots a minute, and all processes reserve them in order through
one database row. With few deployments, each is read every DEPLOYMENTS_STEADY_SECONDS. With 2,000 in 200 clusters, the
clusters take turns, and the deployments of a cluster share a call. Calls for changing deployments have their own lane,
which stays below half of ECS's limit of 20 calls a second:
https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache

from django.conf import settings
from django.db import connection
from django.db.models import Case, DateTimeField, DurationField, Q, When
from django.db.models.functions import Least, Now
from django.utils.functional import cached_property

from deployments.models import Deployment, DeploymentQuerySet
from deployments.states import DesiredState, Status
from portal.database.statements import Given, Statement
from portal.leases import Claim, Lease, LeaseLost, free
from portal.models import Organization

ROWS_PER_CALL = 10
URGENT, STEADY = "urgent", "steady"
URGENT_CALLS_PER_SECOND = 10
# A deployment that has been changing for longer than this is read as often as a steady one.
CHANGING_FOR = timedelta(minutes=10)
# After a write to ECS, its effect is expected to show within this time.
JUST_APPLIED = timedelta(seconds=15)
# A call with room left also reads deployments that were not read for this long.
WORTH_READING = timedelta(seconds=10)
# A slot missed by more than this (no worker ran) is given up, so that a backlog is not read all at the same time. Reads
# that are late by less still count towards the minute's budget, so the slots leave room for them.
MISSED = timedelta(seconds=5)
SLOT_MARGIN = 1.2
SLOT_IS_NOW = timedelta(seconds=1)
# When a row is due again: at its slot, or sooner if someone has started viewing it.
AT = Given("at", DateTimeField())
SOON = Now() + Given("soon", DurationField())
AT_OR_SOONER = Case(When(watched_until__gt=Now(), then=Least(SOON, AT)), default=AT)


@dataclass
class NextSlots:
    """The next slots of both lanes for the rows of one batch. All rows share them, so that one call reads them again.

    With Django's cached_property: that of Python 3.11 holds one lock for all batches while a slot waits for its row.
    """

    organization: Organization

    @cached_property
    def urgent(self) -> datetime:
        return reserve(self.organization, URGENT, pause=settings.DEPLOYMENTS_POLL_SECONDS)

    @cached_property
    def steady(self) -> datetime:
        return reserve(self.organization, STEADY, pause=settings.DEPLOYMENTS_STEADY_SECONDS)


@dataclass
class DeploymentLease(Lease[Deployment]):
    """A lease on one deployment, valid while its wanted state stays unchanged.

    A command during the step makes the step's writes fail with LeaseLost, and the row becomes due immediately. A decision
    for the old wanted state therefore never overwrites the new one.
    """

    next_slots: NextSlots = field(repr=False)
    keeps_slot: bool = False

    def reschedule(self, **fields: object) -> None:
        """Write what was observed and release the lease. The row is due next

            at the urgent slot   if it is now being viewed or changing
            at its own slot      if it was read before that, together with urgent rows
            at the steady slot   otherwise

        *Costs* one query, and one more for the first row of a batch that takes this slot.
        """
        row = self.row
        for name, value in fields.items():
            setattr(row, name, value)  # is_urgent judges what was observed
        if is_urgent(row, self.now):
            self.release_at(self.next_slots.urgent, has_read_slot=False, **fields)
        elif self.keeps_slot and row.next_check_at is not None:
            self.release_at(row.next_check_at, **fields)
        else:
            self.release_at(self.next_slots.steady, has_read_slot=True, **fields)

    def match_own_row(self) -> dict[str, object]:
        return super().match_own_row() | {"requested_generation": self.row.requested_generation}

    def release_at(self, at: datetime, **fields: object) -> None:
        """Release the lease with the row due at `at`, or sooner if someone has started viewing it."""
        soon = timedelta(seconds=settings.DEPLOYMENTS_POLL_SECONDS)
        self.write_with({"at": at, "soon": soon}, lease_until=None, next_check_at=AT_OR_SOONER, **fields)

    def release(self, *, seconds: float, **fields: object) -> None:
        """Release the lease with the row due in `seconds`, without a slot in the read budget."""
        super().release(seconds=seconds, has_read_slot=False, **fields)

    def finish(self, **fields: object) -> None:
        """Release the lease for good. The row is never due again unless a command changes it."""
        self.write(lease_until=None, next_check_at=None, has_read_slot=False, **fields)

    def discard(self) -> None:
        """Discard this result and make the row due immediately."""
        rows = Deployment.unfinished().filter(pk=self.row.pk, lease_epoch=self.row.lease_epoch)
        rows.update(lease_until=None, next_check_at=Now(), has_read_slot=False)


def is_urgent(row: Deployment, now: datetime) -> bool:
    """Return whether the deployment must be read every few seconds: it is being viewed or is changing."""
    if row.watched_until is not None and row.watched_until > now:
        return True
    if (
        row.observed_generation < row.requested_generation
        or row.doubted_at is not None
        or row.wanted == DesiredState.GONE
    ):
        return True
    since = max(at for at in (row.status_at, row.applied_at) if at is not None)
    if row.applied_at is not None and now - row.applied_at < JUST_APPLIED:
        return True
    changes = (
        row.status in (Status.DEPLOYING, Status.RUNNING)
        or row.is_stopping
        or (row.status == Status.READY and row.running_replicas != row.desired_count)
    )
    return changes and now - since < CHANGING_FOR


def claim_batch(organization: Organization, cluster: str) -> list[DeploymentLease]:
    """Claim the rows that one DescribeServices call reads now. Empty if nothing is due or its slot is still to come.

    1. Claim the due rows, and with the room left, rows that were not read for a while.
    2. If a due row is urgent, the read needs no slot. Rows read early keep theirs.
    3. Otherwise the read needs a slot: that of a due row, or the next one of the steady lane.
    4. If that is still to come, postpone all rows to it.
    """
    leases = claim_deployments(organization, cluster)
    due = [lease for lease in leases if is_due(lease)]
    if any(is_urgent(lease.row, lease.now) for lease in due):
        for lease in leases:
            lease.keeps_slot = lease.row.has_read_slot and not is_due(lease)
        return leases
    if not leases or any(has_valid_slot(lease) for lease in due):
        return leases
    slot = reserve(organization, STEADY, pause=0)
    if slot - leases[0].now <= SLOT_IS_NOW:
        return leases
    for lease in leases:
        postpone(lease, slot)
    return []


def claim_deployments(organization: Organization, cluster: str) -> list[DeploymentLease]:
    """Claim up to ROWS_PER_CALL rows if any is due: those due first, then rows not read within WORTH_READING."""
    place = {"organization": organization.pk, "cluster": cluster}
    if not due_in_cluster().read(**place):
        return []
    claims = READABLE_IN_CLUSTER.take(**place)
    next_slots = NextSlots(organization)
    return [DeploymentLease(lease.row, lease.now, next_slots) for lease in claims]


def free_in_cluster() -> DeploymentQuerySet:
    return Deployment.unfinished().filter(free(), organization=Given("organization"), cluster=Given("cluster"))


@cache
def due_in_cluster() -> Statement:
    return Statement(free_in_cluster().filter(next_check_at__lte=Now()).values_list("pk")[:1])


def find_readable_in_cluster() -> DeploymentQuerySet:
    unread = Q(last_checked_at__isnull=True) | Q(last_checked_at__lt=Now() - WORTH_READING)
    rows = free_in_cluster().filter(Q(next_check_at__lte=Now()) | unread).select_related("agent", "organization")
    return rows.order_by("next_check_at", "id")


READABLE_IN_CLUSTER = Claim(find_readable_in_cluster, most=ROWS_PER_CALL)


def is_due(lease: DeploymentLease) -> bool:
    """Return whether the row was due when it was claimed. Ask before anything is written."""
    return lease.row.next_check_at is not None and lease.row.next_check_at <= lease.now


def has_valid_slot(lease: DeploymentLease) -> bool:
    due_at = lease.row.next_check_at
    return lease.row.has_read_slot and due_at is not None and lease.now - due_at < MISSED


def postpone(lease: DeploymentLease, slot: datetime) -> None:
    """Release the row until its slot. If a command has changed it since the claim, make it due immediately."""
    try:
        lease.release_at(slot, has_read_slot=True)
    except LeaseLost:
        lease.discard()


# A slot is the later of `pause` from now and `spacing` after the previous slot of the lane. The row lock of the upsert
# makes concurrent processes take turns, so no two get the same slot.
RESERVE = """
INSERT INTO deployments_readslot AS slot (account, region, lane, slot_at)
VALUES (%(account)s, %(region)s, %(lane)s, clock_timestamp() + make_interval(secs => %(pause)s))
ON CONFLICT (account, region, lane)
DO UPDATE SET slot_at = GREATEST(slot.slot_at + make_interval(secs => %(spacing)s), excluded.slot_at)
RETURNING slot_at
"""


def reserve(organization: Organization, lane: str, *, pause: float) -> datetime:
    """Reserve the next free slot of the organization's AWS account and region, at least `pause` seconds from now."""
    steady_calls_a_second = settings.DEPLOYMENTS_READS_PER_MINUTE / 60 / SLOT_MARGIN
    calls_a_second = URGENT_CALLS_PER_SECOND if lane == URGENT else steady_calls_a_second
    role = organization.deployment_role_arn
    parameters: dict[str, str | float] = {
        "account": role.split(":")[4] if role else "",
        "region": organization.deployment_region,
        "lane": lane,
        "pause": float(pause),
        "spacing": 1 / calls_a_second,
    }
    with connection.cursor() as cursor:
        cursor.execute(RESERVE, parameters)
        slot: datetime = cursor.fetchone()[0]
    return slot
