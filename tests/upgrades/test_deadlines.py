"""The deadline of a rollout: what adds to it, what stops its clock, and what happens after it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now
from django.test import Client

from portal.aws import ecs
from portal.models import User
from portal.models.notifications import ChannelKind, NotificationChannel, NotificationDelivery, NotificationKind
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import UPGRADE, Door
from tests.upgrades.test_states import AT, entry, service_with
from tests.upgrades.test_strategies import (
    configure,
    decide,
    function,
    is_baking,
    is_waiting,
    pause,
    run_until,
    service_name,
    trigger,
)
from upgrades.engine.deadline import build_deadline_fields
from upgrades.engine.watch import is_reported_open
from upgrades.models import Rollout, Upgrade, UpgradeEvent
from upgrades.states import OPEN, EventKind, Outcome, Status
from upgrades.verdicts import judge, judge_by_id

pytestmark = pytest.mark.django_db(transaction=True)

BASE = 45 * 60
HOUR, DAY = 3600, 86400


def pass_deadline(upgrade: Upgrade) -> None:
    Rollout.objects.filter(upgrade=upgrade).update(deadline_at=Now() - timedelta(seconds=1))


def start_stuck(cast: Cast, engine: Engine, platform: LocalAws) -> Upgrade:
    platform.fault("stuck", cluster=cast.acme.cluster, times=1)
    upgrade = trigger(cast)
    engine.start(upgrade)
    engine.step()
    return upgrade


def make_channel(cast: Cast) -> NotificationChannel:
    channel = NotificationChannel(
        organization=cast.acme,
        kind=ChannelKind.WEBHOOK,
        name="test",
        events=[NotificationKind.UPGRADE_OVERDUE],
        created_by=cast.admin,
    )
    channel.target = "https://hooks.example.com/portal"
    channel.save()
    return channel


@pytest.mark.parametrize(
    ("configuration", "extra"),
    [
        ({}, 0),
        ({"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 60}, 60 * 60 + 600),
        ({"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 0, "lifecycleHooks": [pause("PRE_SCALE_UP")]}, 600),
        ({"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 0, "lifecycleHooks": [function("PRE_SCALE_UP")]}, 600 + DAY),
        (
            {
                "strategy": "LINEAR",
                "bakeTimeInMinutes": 5,
                "linearConfiguration": {"stepPercent": 10.0, "stepBakeTimeInMinutes": 6},
            },
            5 * 60 + 10 * 16 * 60,
        ),
        (
            {
                "strategy": "CANARY",
                "bakeTimeInMinutes": 5,
                "canaryConfiguration": {"canaryPercent": 10.0, "canaryBakeTimeInMinutes": 30},
            },
            5 * 60 + 2 * 40 * 60,
        ),
    ],
)
def test_the_configuration_extends_the_deadline(
    cast: Cast, engine: Engine, platform: LocalAws, configuration: dict[str, Any], extra: int
) -> None:
    configure(platform, cast, **configuration)
    upgrade = trigger(cast)

    engine.start(upgrade)
    engine.step()
    engine.step()

    rollout = upgrade.rollouts.get()
    assert rollout.deadline_at is not None
    assert rollout.allowed_seconds == extra
    assert abs((rollout.deadline_at - upgrade.created_at).total_seconds() - BASE - extra) < 10


def test_the_deadline_never_exceeds_the_limit_of_ecs(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    linear = {"stepPercent": 3.0, "stepBakeTimeInMinutes": 1440}
    configure(platform, cast, strategy="LINEAR", bakeTimeInMinutes=1440, linearConfiguration=linear)
    upgrade = trigger(cast)

    engine.start(upgrade)
    engine.step()

    rollout = upgrade.rollouts.get()
    assert rollout.deadline_at is not None
    assert (rollout.deadline_at - upgrade.created_at).total_seconds() <= 30 * DAY + 60


def test_past_its_deadline_it_is_overdue_and_keeps_its_slot(
    cast: Cast, engine: Engine, platform: LocalAws, client_for: Callable[[User], Client], door: Door
) -> None:
    make_channel(cast)
    upgrade = start_stuck(cast, engine, platform)
    pass_deadline(upgrade)

    for _ in range(3):
        engine.step()
        platform.advance(60)

    rollout = upgrade.rollouts.get()
    assert (rollout.status, rollout.outcome, rollout.is_overdue) == (Status.IN_PROGRESS, None, True)
    assert UpgradeEvent.objects.filter(rollout=rollout, kind=EventKind.ROLLOUT_OVERDUE).count() == 1
    sent = NotificationDelivery.objects.get(kind=NotificationKind.UPGRADE_OVERDUE)
    assert upgrade.upgrade_id in sent.text
    client = client_for(cast.operator)
    assert client.get(f"{UPGRADE}/{upgrade.upgrade_id}").json()["services"][0]["is_overdue"] is True
    refused = door.trigger(client, cast.acme, force_new_deployment=True, override_reason="it is overdue")
    assert refused.status_code in (409, 422)
    assert door.stop(client, cast.acme, upgrade.upgrade_id).status_code in (200, 202, 302)
    engine.run(upgrade)
    ended = upgrade.rollouts.get()
    assert (ended.outcome, ended.is_overdue) == (Outcome.STOPPED_BY_USER, False)


def test_an_overdue_rollout_may_still_succeed(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=60)
    upgrade = trigger(cast)
    run_until(engine, upgrade, is_baking)
    pass_deadline(upgrade)

    engine.step()
    overdue = upgrade.rollouts.get()
    engine.run(upgrade, seconds=60)

    assert (overdue.outcome, overdue.is_overdue) == (Outcome.BAKING, True)
    assert upgrade.status == Status.SUCCESS


def test_a_pause_stops_the_clock(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    hooks = [pause("POST_SCALE_UP", timeoutInMinutes=20160)]
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=1, lifecycleHooks=hooks)
    upgrade = trigger(cast)
    rollout = run_until(engine, upgrade, is_waiting)
    assert rollout.deadline_at is not None
    before = rollout.deadline_at
    Rollout.objects.update(waiting_since=F("waiting_since") - timedelta(days=3), deadline_at=Now() - timedelta(days=2))

    engine.step()
    waiting = upgrade.rollouts.get()
    decide(platform, waiting, "CONTINUE")
    engine.step()
    going_on = upgrade.rollouts.get()

    assert (waiting.is_overdue, going_on.is_overdue) == (False, False)
    assert going_on.deadline_at is not None
    assert waiting.deadline_at is not None
    assert timedelta(days=3) <= going_on.deadline_at - waiting.deadline_at < timedelta(days=3, minutes=1)
    assert going_on.deadline_at > before
    assert engine.run(upgrade).status == Status.SUCCESS


def test_a_pause_counts_from_its_beginning(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """Not from when it was first observed: no worker may have run for a while."""
    hooks = [pause("POST_SCALE_UP", timeoutInMinutes=60)]
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=1, lifecycleHooks=hooks)
    rollout = run_until(engine, trigger(cast), is_waiting)
    arn = str(rollout.service_deployment_arn)
    deployment = ecs.describe_service_deployments(cast.acme.aws_target, [arn])[arn]
    ends_at = rollout.hook_expires_at
    assert ends_at is not None
    rollout.waiting_since, rollout.deadline_at = None, ends_at - timedelta(minutes=20)

    fields = build_deadline_fields(rollout, deployment, judge(deployment), now=ends_at - timedelta(minutes=10))

    assert fields["waiting_since"] == ends_at - timedelta(minutes=60)
    assert fields["is_overdue"] is False


def test_a_pause_stops_the_clock_while_aws_does_not_answer(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=1, lifecycleHooks=[pause("POST_SCALE_UP")])
    upgrade = trigger(cast)
    run_until(engine, upgrade, is_waiting)
    Rollout.objects.update(
        waiting_since=F("waiting_since") - timedelta(hours=2), deadline_at=Now() - timedelta(hours=1)
    )
    platform.fault("throttle", account="111111111111")

    engine.step()

    assert upgrade.rollouts.get().is_overdue is False


@pytest.mark.parametrize("kind", ["throttle", "server_error"])
def test_silence_of_aws_is_no_verdict(cast: Cast, engine: Engine, platform: LocalAws, kind: str) -> None:
    make_channel(cast)
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.fault(kind, account="111111111111")
    pass_deadline(upgrade)

    for _ in range(3):
        engine.step()

    rollout = upgrade.rollouts.get()
    assert (rollout.status in OPEN, rollout.is_overdue) == (True, True)
    assert NotificationDelivery.objects.filter(kind=NotificationKind.UPGRADE_OVERDUE).count() == 1
    platform.clear_faults()
    assert engine.run(upgrade).status == Status.SUCCESS


def test_denied_past_the_deadline_it_times_out(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = start_stuck(cast, engine, platform)
    for action in ("DescribeServices", "DescribeServiceDeployments", "ListServiceDeployments"):
        platform.fault("access_denied", action=action, account="111111111111")
    engine.step()
    assert upgrade.rollouts.get().status in OPEN
    pass_deadline(upgrade)

    engine.run(upgrade)

    rollout = upgrade.rollouts.get()
    assert (rollout.status, rollout.outcome) == (Status.FAILED, Outcome.TIMED_OUT)
    platform.clear_faults()
    again = trigger(cast, override_reason="it is still rolling")
    assert again.rollouts.get().phase == "due"  # the slot is free


@pytest.mark.parametrize("fault", ["access_denied", "throttle"])
def test_its_own_record_is_enough(cast: Cast, engine: Engine, platform: LocalAws, fault: str) -> None:
    """DescribeServices fails past the deadline, DescribeServiceDeployments works."""
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.fault(fault, action="DescribeServices", account="111111111111")
    pass_deadline(upgrade)

    engine.run(upgrade)

    assert upgrade.rollouts.get().outcome == Outcome.COMPLETED


def test_without_a_record_the_entry_of_the_service_counts(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    for action in ("ListServiceDeployments", "DescribeServiceDeployments"):
        platform.fault("access_denied", action=action, account="111111111111")
    upgrade = start_stuck(cast, engine, platform)
    pass_deadline(upgrade)

    engine.step()

    rollout = upgrade.rollouts.get()
    assert (rollout.status, rollout.is_overdue) == (Status.IN_PROGRESS, True)


def test_other_strategies_time_out_without_a_record(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=600)
    for action in ("ListServiceDeployments", "DescribeServiceDeployments"):
        platform.fault("access_denied", action=action, account="111111111111")
    upgrade = trigger(cast)
    engine.start(upgrade)
    pass_deadline(upgrade)

    engine.run(upgrade)

    assert upgrade.rollouts.get().outcome == Outcome.TIMED_OUT


def test_without_a_record_the_configuration_at_the_call_counts(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    """ECS copies it into the deployment. A call that was throttled is prepared twice and counts once."""
    configure(platform, cast, strategy="BLUE_GREEN", bakeTimeInMinutes=60)
    platform.fault("throttle", action="UpdateService", times=1)
    for action in ("ListServiceDeployments", "DescribeServiceDeployments"):
        platform.fault("access_denied", action=action, account="111111111111")
    upgrade = trigger(cast)
    engine.start(upgrade)
    platform.fault("access_denied", action="DescribeServices", account="111111111111")

    for _ in range(3):
        engine.step()

    rollout = upgrade.rollouts.get()
    assert rollout.deadline_at is not None
    assert rollout.allowed_seconds == 60 * 60 + 600
    assert abs((rollout.deadline_at - upgrade.created_at).total_seconds() - BASE - 60 * 60 - 600) < 10


@pytest.mark.parametrize(("state", "is_open"), [("IN_PROGRESS", True), ("PAUSED_BY_ECS", True), ("FAILED", False)])
def test_an_unknown_state_of_the_entry_is_no_end(state: str, is_open: bool) -> None:
    """ECS may add a rolloutState. Only those that it documents as ends are ends."""
    service = service_with(entry("mine", primary=True, state=state))
    verdict = judge_by_id(service, "mine", baseline=[], since=AT)

    assert verdict.is_terminal != is_open
    assert is_reported_open(Rollout(strategy="ROLLING", deployment_id="mine"), service, None, verdict) == is_open
    assert state != "PAUSED_BY_ECS" or state in (verdict.reason or "")


def test_the_limit_of_ecs_ends_it(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = start_stuck(cast, engine, platform)
    pass_deadline(upgrade)
    Rollout.objects.filter(upgrade=upgrade).update(started_at=Now() - timedelta(days=30))

    engine.run(upgrade)

    assert upgrade.rollouts.get().outcome == Outcome.TIMED_OUT


def test_not_started_by_its_deadline_it_times_out(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger(cast)
    pass_deadline(upgrade)

    engine.run(upgrade)

    rollout = upgrade.rollouts.get()
    assert (rollout.outcome, rollout.attempts) == (Outcome.TIMED_OUT, 0)
    assert service_name(cast) == rollout.service_name
