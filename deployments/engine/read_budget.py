"""When a deployment is looked at next: often while it changes or is watched, else within AWS's budget.

One DescribeServices call reads ten services of one cluster. Calls for steady deployments take slots: for each AWS account
and region there are somewhat fewer than DEPLOYMENTS_READS_PER_MINUTE slots a minute, reserved one after the other by all
processes in one row. So few deployments are read every DEPLOYMENTS_STEADY_SECONDS, and 2,000 in 200 clusters wait in line
for their turn, in which each cluster's deployments share a call. Calls for changing ones have a lane of their own that
keeps them below half of what ECS allows, 20 a second:
https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection
from django.db.models import Case, Q, Value, When
from django.db.models.functions import Least, Now

from deployments.models import Deployment
from deployments.states import Status, Wanted
from portal.leases import Claim, LeaseLost, free, take
from portal.models import Organization

ROWS_A_CALL = 10
URGENT, STEADY = "urgent", "steady"
URGENT_CALLS_A_SECOND = 10
# After so long without an end, what changes is looked at like what is steady.
CHANGES_FOR = timedelta(minutes=10)
# ECS was told something so lately that its effect must be about to show.
JUST_TOLD = timedelta(seconds=15)
# A call that has room left also reads what was not looked at for so long.
WORTH_READING = timedelta(seconds=10)
# A slot that was missed by more than this (nothing ran) is given back: the backlog must not be read at once. What is
# read that late still counts, so the slots leave room for it in the minute's budget.
MISSED = timedelta(seconds=5)
SLOT_MARGIN = 1.2
SLOT_IS_NOW = timedelta(seconds=1)

RESERVE = """
INSERT INTO deployments_readslot AS slot (account, region, lane, slot_at)
VALUES (%(account)s, %(region)s, %(lane)s, clock_timestamp() + make_interval(secs => %(pause)s))
ON CONFLICT (account, region, lane)
DO UPDATE SET slot_at = GREATEST(slot.slot_at + make_interval(secs => %(spacing)s), excluded.slot_at)
RETURNING slot_at
"""


@dataclass
class Work(Claim[Deployment]):
    """The right to work on one deployment, as long as nobody changes what is wanted of it.

    A command in mid-step makes the step's writes void (LeaseLost), and the row is due again at once: what was decided for
    the old wish is never written over the new one.
    """

    batch: "Batch" = field(init=False, repr=False)

    def rest(self, **fields: object) -> None:
        """Write what was seen and give it back; the batch knows when to look again."""
        self.batch.release(self, **fields)

    def write(self, **fields: object) -> None:
        row = self.row
        rows = Deployment.unfinished().filter(pk=row.pk, lease_epoch=row.lease_epoch, wish=row.wish)
        if not rows.update(**fields):
            raise LeaseLost(str(row))
        for name, value in fields.items():
            setattr(row, name, value)

    def release_at(self, at: datetime, **fields: object) -> None:
        """Give it back, due then; sooner where somebody began to watch it meanwhile."""
        soon = Now() + timedelta(seconds=settings.DEPLOYMENTS_POLL_SECONDS)
        watched = When(watched_until__gt=Now(), then=Least(soon, Value(at)))
        self.write(lease_until=None, next_check_at=Case(watched, default=Value(at)), **fields)

    def release(self, *, seconds: float, **fields: object) -> None:
        """Give it back, due in so many seconds, outside the budget: its next look has no slot."""
        super().release(seconds=seconds, has_read_slot=False, **fields)

    def finish(self, **fields: object) -> None:
        """Give it back for good: nothing more happens to it by itself."""
        self.write(lease_until=None, next_check_at=None, has_read_slot=False, **fields)

    def let_go(self) -> None:
        """What was found is outdated: whoever comes next looks anew, at once."""
        rows = Deployment.unfinished().filter(pk=self.row.pk, lease_epoch=self.row.lease_epoch)
        rows.update(lease_until=None, next_check_at=Now(), has_read_slot=False)


def is_urgent(work: Work) -> bool:
    """Whether the deployment, as it is known now, is to be looked at every few seconds."""
    row = work.row
    if row.watched_until is not None and row.watched_until > work.now:
        return True
    if row.carried_out < row.wish or row.doubted_at is not None or row.wanted == Wanted.GONE:
        return True
    since = max(at for at in (row.status_at, row.applied_at) if at is not None)
    if row.applied_at is not None and work.now - row.applied_at < JUST_TOLD:
        return True
    changes = (
        row.status in (Status.DEPLOYING, Status.RUNNING)
        or row.is_stopping
        or (row.status == Status.READY and row.running_replicas != row.desired_count)
    )
    return changes and work.now - since < CHANGES_FOR


@dataclass
class Batch:
    """What one DescribeServices call reads: deployments of one organization in one cluster."""

    organization: Organization
    cluster: str
    works: list[Work]
    is_steady: bool
    reserved: dict[str, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for work in self.works:
            work.batch = self

    def slot(self, lane: str, pause: float) -> datetime:
        """The lane's next slot; all rows of the batch share it to the microsecond, so that one call will read them."""
        if lane not in self.reserved:
            self.reserved[lane] = reserve(self.organization, lane, pause=pause)
        return self.reserved[lane]

    def release(self, work: Work, **fields: object) -> None:
        """Write what was seen, and decide when to look again."""
        for name, value in fields.items():
            setattr(work.row, name, value)
        if is_urgent(work):
            at = self.slot(URGENT, settings.DEPLOYMENTS_POLL_SECONDS)
            return work.release_at(at, has_read_slot=False, **fields)
        due_at = work.row.next_check_at
        if work.row.has_read_slot and not self.is_steady and due_at is not None and due_at > work.now:
            # It was read along with others, before its turn: it keeps its place.
            return work.release_at(due_at, **fields)
        work.release_at(self.slot(STEADY, settings.DEPLOYMENTS_STEADY_SECONDS), has_read_slot=True, **fields)


def take_batch(organization: Organization, cluster: str) -> Batch | None:
    """Claim what one call can read, where something is due. None: nothing is, or its turn has not come."""
    rows = Deployment.unfinished().filter(free(), organization=organization, cluster=cluster)
    if not rows.filter(next_check_at__lte=Now()).exists():
        return None
    unread = Q(last_checked_at__isnull=True) | Q(last_checked_at__lt=Now() - WORTH_READING)
    wanted = rows.filter(Q(next_check_at__lte=Now()) | unread).select_related("agent", "organization")
    works = [Work(claim.row, claim.now) for claim in take(wanted.order_by("next_check_at", "id"), most=ROWS_A_CALL)]
    if not works:
        return None
    due = [work for work in works if work.row.next_check_at and work.row.next_check_at <= work.now]
    batch = Batch(organization, cluster, works, is_steady=not any(is_urgent(work) for work in due))
    if batch.is_steady and not any(has_its_slot(work) for work in due):
        slot = batch.slot(STEADY, 0)
        if slot - works[0].now > SLOT_IS_NOW:
            for work in works:
                postpone(work, slot)
            return None
        batch.reserved.clear()
    return batch


def postpone(work: Work, slot: datetime) -> None:
    """Back into the line, with a place in it; unless somebody has changed it since it was claimed."""
    try:
        work.release_at(slot, has_read_slot=True)
    except LeaseLost:
        work.let_go()


def has_its_slot(work: Work) -> bool:
    due_at = work.row.next_check_at
    return work.row.has_read_slot and due_at is not None and work.now - due_at < MISSED


def reserve(organization: Organization, lane: str, *, pause: float) -> datetime:
    """Take the next free slot of the organization's AWS account and region, `pause` seconds from now at the earliest."""
    steady_calls_a_second = settings.DEPLOYMENTS_READS_PER_MINUTE / 60 / SLOT_MARGIN
    calls_a_second = URGENT_CALLS_A_SECOND if lane == URGENT else steady_calls_a_second
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
