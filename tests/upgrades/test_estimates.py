"""Estimates from past rollouts: how long an upgrade will take, and when a rollout has stalled."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone

from portal.models import Organization, User
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import make_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.estimates import PAST_ROLLOUTS, TimeLeft, estimate_seconds, time_left
from upgrades.models import Rollout, Upgrade, UpgradeEvent
from upgrades.states import EventKind, Outcome, Phase, Status

SignIn = Callable[[User], Client]


@pytest.fixture
def past(cast: Cast) -> None:
    """Record a past upgrade of acme: agent service 70 s, orchestrator 100 s, customer portal 200 s."""
    rolled(cast.acme, cast.operator, {"agent": 70, "orchestrator": 100, "customer-portal": 200})


def rolled(organization: Organization, by: User, seconds: dict[str, int]) -> None:
    upgrade = make_upgrade(organization, by=by, target="all")
    for service, took in seconds.items():
        took_all = Now() - timedelta(seconds=took)
        upgrade.rollouts.filter(service=service).update(started_at=took_all, completed_at=Now())


def under_way(cast: Cast, *, for_seconds: float, **fields: Any) -> Upgrade:
    """Return an open upgrade of acme's three services whose agent service has been rolling for `for_seconds`."""
    statuses = [Status.IN_PROGRESS, Status.PENDING, Status.PENDING]
    upgrade = make_upgrade(cast.acme, by=cast.operator, target="all", statuses=statuses, **fields)
    started_at = timezone.now() - timedelta(seconds=for_seconds)
    upgrade.rollouts.filter(service="agent").update(started_at=started_at)
    return Upgrade.objects.for_record().get(pk=upgrade.pk)


def left(upgrade: Upgrade) -> TimeLeft | None:
    return time_left(upgrade, now=timezone.now())


# --- time left ------------------------------------------------------------------------------------------------------


def test_the_time_left_counts_down_during_a_rollout(cast: Cast, past: None) -> None:
    found = left(under_way(cast, for_seconds=30))

    assert found == TimeLeft(340)
    assert str(found) == "About 6 minutes left, based on past rollouts."


def test_the_last_minute_is_not_counted_in_seconds(cast: Cast, past: None) -> None:
    upgrade = under_way(cast, for_seconds=30)
    upgrade.rollouts.exclude(service="agent").update(phase=Phase.DONE)

    assert (
        str(left(Upgrade.objects.for_record().get(pk=upgrade.pk))) == "Less than a minute left, based on past rollouts."
    )


def test_a_service_that_takes_longer_than_usual_is_named(cast: Cast, past: None) -> None:
    found = left(under_way(cast, for_seconds=95))

    assert found == TimeLeft(300, 70, "agent service")
    assert str(found) == "The agent service is taking longer than its usual 1 min 10 s. The rest takes about 5 minutes."


def test_a_service_without_a_past_is_named(cast: Cast) -> None:
    make_upgrade(cast.acme, by=cast.operator)
    rolled(cast.globex, cast.outsider, {"agent": 70, "orchestrator": 100, "customer-portal": 200})

    found = str(left(under_way(cast, for_seconds=5)))

    assert found == "No estimate yet: no past rollout of orchestrator and customer portal."


def test_a_bake_ends_at_its_own_time(cast: Cast, past: None) -> None:
    upgrade = under_way(cast, for_seconds=900)
    bake = {"outcome": Outcome.BAKING, "bake_ends_at": Now() + timedelta(minutes=10)}
    upgrade.rollouts.filter(service="agent").update(**bake)
    with_others = left(Upgrade.objects.for_record().get(pk=upgrade.pk))
    upgrade.rollouts.exclude(service="agent").update(phase=Phase.DONE)
    Rollout.objects.exclude(upgrade=upgrade).delete()

    only = left(Upgrade.objects.for_record().get(pk=upgrade.pk))

    assert str(with_others) == "About 15 minutes left, based on the bake time and past rollouts."
    assert str(only) == "About 10 minutes left, based on the bake time."


@pytest.mark.parametrize("seen", [{"outcome": Outcome.ROLLING_BACK}, {"is_stalled": True}])
def test_there_is_no_estimate_during_a_stall_or_rollback(cast: Cast, past: None, seen: dict[str, Any]) -> None:
    upgrade = under_way(cast, for_seconds=5)
    upgrade.rollouts.filter(service="agent").update(**seen)

    assert left(Upgrade.objects.for_record().get(pk=upgrade.pk)) is None


def test_there_is_no_estimate_after_a_stop_or_the_end(cast: Cast, past: None) -> None:
    stopped = under_way(cast, for_seconds=5, stop_requested_at=Now())
    ended = Upgrade.objects.for_record().filter(status=Status.SUCCESS).first()

    assert ended
    assert (left(stopped), left(ended)) == (None, None)


def test_failed_rollouts_and_old_ones_do_not_count(cast: Cast) -> None:
    rolled(cast.acme, cast.operator, {"agent": 9000})
    for _ in range(PAST_ROLLOUTS):
        rolled(cast.acme, cast.operator, {"agent": 70})
    rolled(cast.acme, cast.operator, {"agent": 5})
    Rollout.objects.filter(pk=Rollout.objects.filter(service="agent").latest("completed_at").pk).update(
        outcome=Outcome.ROLLED_BACK
    )

    assert estimate_seconds(cast.acme, ["agent"]) == 70


def test_it_costs_one_query_whatever_the_number_of_services(
    cast: Cast, past: None, django_assert_num_queries: Any
) -> None:
    upgrade = under_way(cast, for_seconds=5)

    with django_assert_num_queries(1):
        left(upgrade)


def test_the_page_shows_the_time_left(cast: Cast, past: None, client_for: SignIn) -> None:
    upgrade = under_way(cast, for_seconds=30)

    text = client_for(cast.viewer).get(f"/o/acme/upgrades/{upgrade.upgrade_id}/").content.decode()

    assert "About 6 minutes left, based on past rollouts." in text


# --- stalls -------------------------------------------------------------------------------------------------------


def started(cast: Cast, engine: Engine) -> Rollout:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    return engine.start(upgrade)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("usual", "limit"), [(20, 60), (90, 90), (1000, 300)])
def test_the_stall_limit_is_the_usual_duration_of_a_rollout(cast: Cast, engine: Engine, usual: int, limit: int) -> None:
    rolled(cast.acme, cast.operator, {"agent": usual, "orchestrator": 7})

    assert started(cast, engine).stall_seconds == limit


@pytest.mark.django_db(transaction=True)
def test_without_past_rollouts_the_setting_is_the_limit(cast: Cast, engine: Engine) -> None:
    assert started(cast, engine).stall_seconds is None


@pytest.mark.django_db(transaction=True)
def test_a_stall_is_flagged_early_with_the_last_ecs_event(
    cast: Cast, engine: Engine, platform: LocalAws, client_for: SignIn
) -> None:
    rolled(cast.acme, cast.operator, {"agent": 70})
    platform.fault("no_capacity", cluster=cast.acme.cluster)
    rollout = started(cast, engine)
    platform.advance(30)
    engine.step()
    moved_at = timezone.now() - timedelta(seconds=75)
    Rollout.objects.filter(pk=rollout.pk).update(progressed_at=moved_at)

    engine.step()

    rollout.refresh_from_db()
    assert rollout.is_stalled
    told = UpgradeEvent.objects.get(rollout=rollout, kind=EventKind.ROLLOUT_STALLED)
    assert "unable to place a task" in told.message
    text = client_for(cast.viewer).get(f"/o/acme/upgrades/{rollout.upgrade.upgrade_id}/").content.decode()
    notice = text.partition("No progress since")[2].partition("</div>")[0]
    assert "for longer than 1 min 10 s" in notice
    assert "unable to place a task" in notice
    assert "If you stop it, ECS rolls it back." in notice


@pytest.mark.django_db(transaction=True)
def test_a_rollout_below_the_stall_limit_is_not_flagged(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    rolled(cast.acme, cast.operator, {"agent": 70})
    platform.fault("no_capacity", cluster=cast.acme.cluster)
    rollout = started(cast, engine)
    engine.step()
    Rollout.objects.filter(pk=rollout.pk).update(progressed_at=timezone.now() - timedelta(seconds=60))

    engine.step()

    rollout.refresh_from_db()
    assert not rollout.is_stalled
