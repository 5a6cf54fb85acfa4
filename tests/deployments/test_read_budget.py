"""When deployments are read: changing and viewed ones within seconds, steady ones within the read budget."""

import itertools
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from deployments.commands import mark_watched
from deployments.engine import read_budget
from deployments.engine.read_budget import STEADY, claim_batch, reserve
from deployments.engine.reconciler import reconcile
from deployments.models import Agent, Deployment
from deployments.tasks import find_due_clusters
from tests.conftest import Cast
from tests.deployments.conftest import make_agent, make_deployment
from tests.local_aws import LocalAws

pytestmark = pytest.mark.django_db

LONG_AGO = timedelta(hours=1)


def make_steady(cast: Cast, agent: Agent, local_aws: LocalAws, count: int = 1) -> list[Deployment]:
    """Create deployments that have been ready for an hour, in the database and in ECS. They are due now, without a slot."""
    long_ago = timezone.now() - LONG_AGO
    made = [make_deployment(cast, agent, replicas=1) for _ in range(count)]
    services = [{"name": each.service_name, "desired_count": 1} for each in made]
    local_aws.seed(cluster=agent.organization.cluster, services=services)
    rows = Deployment.objects.filter(pk__in=[each.pk for each in made])
    rows.update(running_replicas=1, desired_count=1, status_at=long_ago, next_check_at=Now())
    return made


def turn(deployment: Deployment) -> int:
    return reconcile(str(deployment.organization_id), deployment.cluster)


def seconds_to_next_poll(deployment: Deployment) -> float:
    deployment.refresh_from_db()
    assert deployment.next_check_at
    return (deployment.next_check_at - timezone.now()).total_seconds()


def make_due(**fields: Any) -> None:
    Deployment.objects.update(next_check_at=Now(), **fields)


def test_few_steady_deployments_are_read_every_fifteen_seconds(cast: Cast, agent: Agent, platform: LocalAws) -> None:
    (deployment,) = make_steady(cast, agent, platform)

    assert turn(deployment) == 1

    assert 14 < seconds_to_next_poll(deployment) <= 15.1


def test_ten_of_a_cluster_share_a_call_and_a_slot(cast: Cast, agent: Agent, platform: LocalAws) -> None:
    made = make_steady(cast, agent, platform, count=12)

    assert turn(made[0]) == 10

    observed_at = Deployment.objects.exclude(last_checked_at=None)
    assert observed_at.values_list("next_check_at", flat=True).distinct().count() == 1
    assert observed_at.filter(has_read_slot=True).count() == 10
    turn(made[0])  # the other two wait for a slot of their own
    assert Deployment.objects.filter(last_checked_at=None, has_read_slot=True, next_check_at__gt=Now()).count() == 2


def test_slots_of_an_account_are_never_closer_than_the_budget(cast: Cast, settings: Any) -> None:
    slots = [reserve(cast.acme, STEADY, pause=pause) for pause in (15, 0, 15, 0, 15)]

    gaps = [(later - earlier).total_seconds() for earlier, later in itertools.pairwise(slots)]
    assert min(gaps) >= 60 / settings.DEPLOYMENTS_READS_PER_MINUTE
    other = reserve(cast.globex, STEADY, pause=0)  # another account has slots of its own
    assert other < slots[0]


def test_a_missed_slot_is_given_up(cast: Cast, agent: Agent, platform: LocalAws) -> None:
    """After an hour without a worker, overdue rows are read one after the other, not all at the same time."""
    (deployment,) = make_steady(cast, agent, platform)
    reserve(cast.acme, STEADY, pause=60)
    Deployment.objects.update(next_check_at=Now() - LONG_AGO, has_read_slot=True)

    assert turn(deployment) == 0

    assert 59 < seconds_to_next_poll(deployment) < 63
    assert Deployment.objects.get().last_checked_at is None


@pytest.mark.parametrize("status", ["deploying", "running"])
def test_a_changing_deployment_is_read_every_few_seconds(
    cast: Cast, agent: Agent, platform: LocalAws, status: str
) -> None:
    (deployment,) = make_steady(cast, agent, platform)
    Deployment.objects.update(status=status, status_at=Now(), replicas=1)
    platform.fault("server_error", action="DescribeServices")  # it stays as it is

    turn(deployment)
    platform.clear_faults()

    assert seconds_to_next_poll(deployment) <= 6.1


def test_a_long_change_is_read_like_a_steady_deployment(cast: Cast, agent: Agent, platform: LocalAws) -> None:
    (deployment,) = make_steady(cast, agent, platform)
    platform.client().update_service(cluster=deployment.cluster, service=deployment.service_name, desiredCount=2)
    Deployment.objects.update(status="running", replicas=2)

    turn(deployment)

    assert seconds_to_next_poll(deployment) > 14


def test_a_deployment_is_read_often_only_while_it_is_viewed(cast: Cast, agent: Agent, platform: LocalAws) -> None:
    (deployment,) = make_steady(cast, agent, platform)
    turn(deployment)

    mark_watched(deployment)
    assert seconds_to_next_poll(deployment) <= 0
    turn(deployment)
    assert seconds_to_next_poll(deployment) <= 3.1
    make_due(watched_until=timezone.now() - LONG_AGO)
    turn(deployment)
    turn(deployment)

    assert seconds_to_next_poll(deployment) > 10


def test_viewing_writes_only_once_in_a_few_seconds(
    cast: Cast, agent: Agent, platform: LocalAws, django_assert_num_queries: Any
) -> None:
    made = make_steady(cast, agent, platform, count=3)

    with django_assert_num_queries(5):  # a transaction, its limit of locks, two updates
        mark_watched(*made)
    with django_assert_num_queries(0):
        mark_watched(*made)


def test_viewing_during_a_read_makes_the_row_due_soon(cast: Cast, agent: Agent, platform: LocalAws) -> None:
    (deployment,) = make_steady(cast, agent, platform)
    batch = claim_batch(cast.acme, deployment.cluster)
    assert batch

    mark_watched(deployment)
    batch[0].reschedule()

    assert seconds_to_next_poll(deployment) <= 3.1


def test_a_row_that_is_read_early_keeps_its_slot(cast: Cast, agent: Agent, platform: LocalAws) -> None:
    steady, watched = make_steady(cast, agent, platform, count=2)
    place = timezone.now() + timedelta(minutes=3)
    Deployment.objects.filter(pk=steady.pk).update(
        next_check_at=place, has_read_slot=True, last_checked_at=timezone.now() - LONG_AGO
    )
    mark_watched(watched)

    assert turn(watched) == 2

    steady.refresh_from_db()
    assert steady.next_check_at == place
    assert steady.last_checked_at
    assert steady.last_checked_at > timezone.now() - timedelta(minutes=1)


def test_two_thousand_in_two_hundred_clusters_stay_in_the_budget(cast: Cast, settings: Any) -> None:
    """Tests only the slots: 200 batches each reserve their next call."""
    began = timezone.now()

    slots = [reserve(cast.acme, STEADY, pause=0) for _ in range(200)]

    in_first_minute = [slot for slot in slots if slot < began + timedelta(minutes=1)]
    assert len(in_first_minute) <= settings.DEPLOYMENTS_READS_PER_MINUTE
    assert slots[-1] - began < timedelta(minutes=5)


def test_changing_deployments_come_before_steady_ones(cast: Cast, agent: Agent, platform: LocalAws) -> None:
    make_steady(cast, agent, platform)
    make_due(has_read_slot=True)
    theirs = make_deployment(cast, make_agent(cast, organization=cast.globex), "deploying")
    Deployment.objects.filter(pk=theirs.pk).update(next_check_at=Now())
    Deployment.objects.exclude(pk=theirs.pk).update(next_check_at=F("next_check_at") - LONG_AGO)

    places = find_due_clusters()

    assert [(organization, overdue) for organization, _, overdue in places] == [
        (cast.globex.pk, False),
        (cast.acme.pk, True),
    ]


def test_the_margin_leaves_room_for_late_reads() -> None:
    assert 60 / read_budget.SLOT_MARGIN + read_budget.MISSED.total_seconds() <= 60
