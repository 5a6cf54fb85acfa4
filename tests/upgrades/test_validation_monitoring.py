"""The validation row `monitoring`: how long services must be steady, and what disturbs them."""

import re
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from django.utils import timezone

from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import Validator
from tests.upgrades.validations import get_messages, get_run, maintain, roll_out, row, validation
from upgrades.models import Rollout, Upgrade, ValidationRun
from upgrades.states import CheckStatus, Outcome, Validation

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_row_shows_how_long_services_are_steady(cast: Cast, engine: Engine, validator: Validator) -> None:
    upgrade = roll_out(cast, engine)

    validator.run(seconds=120)

    monitoring = row(upgrade, "monitoring")
    assert monitoring.status == CheckStatus.UNKNOWN
    assert re.fullmatch(r"Steady for 2 min( \d+ s)? of 5 min\.", monitoring.detail)
    assert 120 <= monitoring.evidence["steady_seconds"] < 150
    validator.run(seconds=180)
    assert row(upgrade, "monitoring").status == CheckStatus.PASS


def test_a_disturbance_restarts_the_count_and_is_shown(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws
) -> None:
    upgrade = roll_out(cast, engine, "agent")
    validator.run(seconds=200)
    name = f"{cast.acme.deployment_stack}-agent-service"
    platform.client().update_service(cluster=cast.acme.cluster, service=name, desiredCount=6)

    validator.step()

    monitoring = row(upgrade, "monitoring")
    assert monitoring.status == CheckStatus.FAIL
    assert monitoring.detail == "Agent service: 4 of 6 tasks run. Steady for 0 s of 5 min."
    assert (get_run(upgrade).steady_since, monitoring.evidence["disturbances"]) == (None, 1)

    platform.advance(60)
    validator.run(seconds=280)
    assert row(upgrade, "monitoring").status == CheckStatus.UNKNOWN
    validator.run(seconds=40)
    assert row(upgrade, "monitoring").status == CheckStatus.PASS


def test_an_outside_deployment_fails_monitoring(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws
) -> None:
    upgrade = roll_out(cast, engine)
    validator.step()
    name = f"{cast.acme.deployment_stack}-agent-service"
    platform.client().update_service(cluster=cast.acme.cluster, service=name, forceNewDeployment=True)
    platform.advance(120)

    validator.run(seconds=400)
    assert row(upgrade, "monitoring").detail.startswith("Agent service: it was deployed again outside this upgrade.")

    validator.elapse(1800)
    validator.step()
    assert (row(upgrade, "monitoring").status, validation(upgrade)) == (CheckStatus.FAIL, Validation.FAILED)


def test_an_outside_deployment_is_noticed_by_arn(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws
) -> None:
    """The rollout was adopted after a lost reply, when ECS showed only one of its two ids."""
    upgrade = roll_out(cast, engine)
    Rollout.objects.filter(upgrade=upgrade).update(deployment_id=None)
    validator.step()
    assert row(upgrade, "monitoring").status == CheckStatus.UNKNOWN
    name = f"{cast.acme.deployment_stack}-agent-service"
    platform.client().update_service(cluster=cast.acme.cluster, service=name, forceNewDeployment=True)
    platform.advance(120)

    validator.elapse(20)
    validator.step()

    monitoring = row(upgrade, "monitoring")
    assert monitoring.status == CheckStatus.FAIL
    assert monitoring.detail.startswith("Agent service: it was deployed again outside this upgrade.")


def roll_out_early(cast: Cast, engine: Engine, platform: LocalAws) -> Upgrade:
    """Roll the agent service out by early success, so that its old tasks drain afterwards."""
    early = {"enable": True, "healthyPercent": 100, "sourceServiceRevisionCleanup": "DEFERRED"}
    service = f"{cast.acme.deployment_stack}-agent-service"
    configuration = {"earlySuccessCriteria": early}
    platform.client().update_service(cluster=cast.acme.cluster, service=service, deploymentConfiguration=configuration)
    upgrade = roll_out(cast, engine)
    assert upgrade.rollouts.get().outcome == Outcome.COMPLETED_EARLY
    return upgrade


def drain(platform: LocalAws) -> None:
    for _ in range(60):
        platform.advance(30)


def test_no_row_passes_silently_while_two_versions_serve(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws
) -> None:
    upgrade = roll_out_early(cast, engine, platform)
    old = upgrade.rollouts.get().source_running
    assert old > 0

    validator.run(seconds=400)

    monitoring = row(upgrade, "monitoring")
    assert (monitoring.status, monitoring.evidence["disturbances"]) == (CheckStatus.UNKNOWN, 0)
    assert monitoring.detail.startswith(f"Agent service: two versions serve, {old} old task")
    assert f"Meanwhile two versions serve, {old} old task" in row(upgrade, "sign_in_page").detail
    assert (get_run(upgrade).steady_since, validation(upgrade)) == (None, Validation.NEEDED)

    drain(platform)
    validator.run(seconds=320)

    assert row(upgrade, "monitoring").status == CheckStatus.PASS
    assert upgrade.rollouts.get().source_running == 0
    assert [each for each in get_messages(upgrade, "upgrade.validated") if "no old task drains any more" in each]


def test_a_run_that_ends_while_old_tasks_drain_waits_for_a_person(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws
) -> None:
    upgrade = roll_out_early(cast, engine, platform)
    validator.step()
    assert get_run(upgrade).next_check_at > timezone.now() + timedelta(seconds=50)

    validator.elapse(3600)
    validator.step()

    monitoring = row(upgrade, "monitoring")
    assert (get_run(upgrade).is_done, monitoring.status) == (True, CheckStatus.UNKNOWN)
    assert "two versions serve" in monitoring.detail
    assert validation(upgrade) == Validation.NEEDED


def test_old_tasks_are_counted_until_the_last_is_gone(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws, broker_down: None
) -> None:
    """The validation has ended, so only the sweep counts, once a minute."""
    upgrade = roll_out_early(cast, engine, platform)
    ValidationRun.objects.update(is_done=True)
    old = upgrade.rollouts.get().source_running
    drain(platform)

    maintain()
    assert upgrade.rollouts.get().source_running == old
    Rollout.objects.filter(upgrade=upgrade).update(last_checked_at=Now() - timedelta(minutes=11))
    maintain()

    assert upgrade.rollouts.get().source_running == 0
    assert (upgrade.rollouts.get().outcome, validation(upgrade)) == (Outcome.COMPLETED_EARLY, Validation.NEEDED)


@pytest.mark.parametrize("fault", ["server_error", "access_denied", "throttle"])
def test_an_aws_failure_neither_counts_nor_resets(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws, fault: str
) -> None:
    upgrade = roll_out(cast, engine)
    validator.run(seconds=120)
    since = get_run(upgrade).steady_since

    platform.fault(fault, action="DescribeServices")
    validator.elapse(20)
    validator.step()

    monitoring = row(upgrade, "monitoring")
    assert monitoring.status == CheckStatus.UNKNOWN
    said = r"Steady for 2 min( \d+ s)? of 5 min\. AWS did not answer the last check: ecs:Describe"
    assert re.match(said, monitoring.detail)
    now = get_run(upgrade).steady_since
    assert since
    assert now == since - timedelta(seconds=20)  # as the test moved it
    platform.clear_faults()
    validator.elapse(20)
    validator.step()
    assert 160 <= row(upgrade, "monitoring").evidence["steady_seconds"] < 190


def test_unwatched_time_does_not_count_as_steady(cast: Cast, engine: Engine, validator: Validator) -> None:
    upgrade = roll_out(cast, engine)
    validator.run(seconds=60)

    validator.elapse(600)
    validator.step()

    assert 80 <= row(upgrade, "monitoring").evidence["steady_seconds"] < 110


@pytest.mark.parametrize("missing", ["deployment_id", "service_deployment_arn"])
def test_the_run_ends_when_a_later_upgrade_takes_over(
    cast: Cast, engine: Engine, validator: Validator, missing: str
) -> None:
    """The later deployment may be known by either of its two ids."""
    upgrade = roll_out(cast, engine)
    validator.step()
    later = roll_out(cast, engine)
    Rollout.objects.filter(upgrade=later).update(**{missing: None})

    validator.step()

    monitoring = row(upgrade, "monitoring")
    assert monitoring.status == CheckStatus.UNKNOWN
    assert monitoring.detail.startswith(f"Agent service was rolled out again by {later.upgrade_id}")
    assert (get_run(upgrade).is_done, get_run(later).is_done) == (True, False)
    assert validation(upgrade) == Validation.NEEDED
