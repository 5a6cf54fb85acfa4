"""The portal's own validation of an upgrade on the local AWS: what it probes, how it judges, when it ends."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.utils import timezone

from portal import tenancy
from portal.leases import LeaseLost
from portal.models import AuditEvent
from portal.models.notifications import NotificationDelivery
from tests.conftest import Cast, Engine
from tests.local_aws import ROOT, LocalAws
from tests.notifications.conftest import make_channel
from tests.outside import Outside, outside
from tests.processes import wait_for
from tests.upgrades.conftest import Validator, make_upgrade, matrix
from upgrades.checks.validation import claim_run, count_try, step, validate
from upgrades.commands.sign import probe_again, sign_check
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Rollout, Upgrade, UpgradeCheck, UpgradeEvent, ValidationRun
from upgrades.states import CheckStatus, Outcome, Status, Validation
from upgrades.tasks import maintain_validations, sweep_validations

pytestmark = pytest.mark.django_db(transaction=True)

AUTOMATIC = ["sign_in_page", "platform_health", "provider_path", "connector_path", "monitoring", "portal_views"]


def roll_out(cast: Cast, engine: Engine, service: str = "agent") -> Upgrade:
    return engine.run(trigger_upgrade(cast.acme, actor=cast.operator, service=service, force_new_deployment=True))


def row(upgrade: Upgrade, name: str) -> UpgradeCheck:
    return UpgradeCheck.objects.get(upgrade=upgrade, stage="validation", name=name)


def get_run(upgrade: Upgrade) -> ValidationRun:
    return ValidationRun.objects.get(upgrade=upgrade)


def validation(upgrade: Upgrade) -> str:
    upgrade.refresh_from_db()
    return upgrade.validation


def get_messages(upgrade: Upgrade, kind: str) -> list[str]:
    events = UpgradeEvent.objects.filter(upgrade=upgrade, kind=kind).order_by("created_at", "id")
    return list(events.values_list("message", flat=True))


def sign(upgrade: Upgrade, cast: Cast, check: str, status: CheckStatus = CheckStatus.PASS, note: str = "") -> None:
    sign_check(upgrade, actor=cast.operator, check=check, status=status, note=note)


# --- it works --------------------------------------------------------------------------------------------------------


def test_probes_and_two_signatures_validate_an_upgrade(cast: Cast, engine: Engine, validator: Validator) -> None:
    upgrade = roll_out(cast, engine)
    assert (validation(upgrade), set(matrix(upgrade).values())) == (Validation.NEEDED, {"unknown"})

    validator.run(seconds=300)

    passed = dict.fromkeys(AUTOMATIC, "pass")
    by_people = dict.fromkeys(["sign_in", "licence_usage"], "unknown")
    assert matrix(upgrade) == passed | by_people
    assert (get_run(upgrade).is_done, validation(upgrade)) == (True, Validation.NEEDED)

    sign(upgrade, cast, "sign_in")
    assert validation(upgrade) == Validation.NEEDED
    sign(upgrade, cast, "licence_usage")

    assert validation(upgrade) == Validation.PASSED
    assert get_messages(upgrade, "upgrade.validated") == ["Needs validation.", "Validated."]
    audited = AuditEvent.objects.get(kind="upgrade.validated")
    assert (audited.subject, audited.actor, audited.data) == (
        upgrade.upgrade_id,
        cast.operator,
        {"validation": "passed", "was": "needed"},
    )


def test_each_row_shows_its_evidence(cast: Cast, engine: Engine, validator: Validator) -> None:
    upgrade = roll_out(cast, engine)

    validator.step()

    health, provider, views = (
        row(upgrade, "platform_health"),
        row(upgrade, "provider_path"),
        row(upgrade, "portal_views"),
    )
    assert [fact["http_status"] for fact in health.evidence["asked"]] == [200, 200, 200]
    assert "completed a prompt" in provider.detail
    assert provider.evidence["url"].endswith("/test")
    assert views.detail == "The customer portal's deployment view answers and asks to sign in. No page was opened."
    assert (views.evidence["http_status"], views.evidence["probed"]) == (401, "pass")
    assert views.evidence["url"].endswith("/api/v1/deployments/upgrades")
    assert all(check.checked_at and not check.is_signed for check in (health, provider, views))


def test_a_customer_portal_that_is_down_fails_the_views_row(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws
) -> None:
    platform.set_platform(cast.acme.deployment_stack, "customer-portal", "down")
    upgrade = roll_out(cast, engine)

    validator.step()

    views = row(upgrade, "portal_views")
    assert views.status == CheckStatus.FAIL
    assert views.detail.startswith("The customer portal answered HTTP 503.")


def test_each_new_result_is_in_the_timeline_once(cast: Cast, engine: Engine, validator: Validator) -> None:
    upgrade = roll_out(cast, engine)

    validator.run(seconds=120)

    recorded = get_messages(upgrade, "check.recorded")
    assert len(recorded) == len(set(recorded)) == len(AUTOMATIC)
    assert "Sign-in page responds: pass. The customer portal's sign-in answers." in recorded


def test_an_upgrade_that_advanced_nothing_needs_no_validation(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws
) -> None:
    platform.fault("crash", cluster=cast.acme.cluster, service=f"{cast.acme.deployment_stack}-agent-service")
    failed = roll_out(cast, engine)
    unchanged = engine.run(trigger_upgrade(cast.acme, actor=cast.operator, service="orchestrator"))

    assert [validation(failed), validation(unchanged)] == [Validation.NONE, Validation.NONE]
    assert not ValidationRun.objects.exists()


def test_a_partial_upgrade_is_validated_for_what_advanced(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws
) -> None:
    platform.fault("crash", cluster=cast.acme.cluster, service=f"{cast.acme.deployment_stack}-orchestrator-service")
    upgrade = roll_out(cast, engine, "all")
    assert upgrade.status == Status.PARTIAL

    validator.run(seconds=300)

    monitoring = row(upgrade, "monitoring")
    assert (monitoring.status, list(monitoring.evidence["services"])) == (CheckStatus.PASS, ["agent"])


# --- probes ----------------------------------------------------------------------------------------------------------


def test_a_failed_probe_is_repeated_until_it_passes(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws
) -> None:
    upgrade = roll_out(cast, engine)
    platform.set_platform(cast.acme.deployment_stack, "component/llm_router", "unhealthy")
    validator.step()
    assert matrix(upgrade)["platform_health"] == "fail"
    assert "llm_router" in row(upgrade, "platform_health").detail
    assert validation(upgrade) == Validation.NEEDED

    platform.clear_platform()
    validator.elapse(20)
    validator.step()

    assert matrix(upgrade)["platform_health"] == "pass"


def test_a_failure_at_the_end_fails_the_validation(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws
) -> None:
    upgrade = roll_out(cast, engine)
    platform.set_platform(cast.acme.deployment_stack, "component/llm_router", "unhealthy")
    validator.run(seconds=300)
    assert (validation(upgrade), get_run(upgrade).is_done) == (Validation.NEEDED, False)

    validator.elapse(1800)
    validator.step()

    assert (validation(upgrade), get_run(upgrade).is_done) == (Validation.FAILED, True)
    audited = AuditEvent.objects.get(kind="upgrade.validated")
    assert (audited.actor, audited.data["validation"]) == (None, "failed")


def test_without_addresses_the_rows_wait_for_people(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws
) -> None:
    type(cast.acme).objects.update(platform_agent_url="", platform_orchestrator_url="", platform_portal_url="")
    upgrade = roll_out(cast, engine)

    validator.run(seconds=300)
    validator.elapse(1800)
    validator.step()

    assert [name for name, status in matrix(upgrade).items() if status == "pass"] == ["monitoring"]
    assert "is not set. Staff can set it" in row(upgrade, "sign_in_page").detail
    assert (validation(upgrade), get_run(upgrade).is_done) == (Validation.NEEDED, True)
    for name in ("sign_in_page", "sign_in", "platform_health", "provider_path", "connector_path", "portal_views"):
        sign(upgrade, cast, name)
    sign(upgrade, cast, "licence_usage")
    assert validation(upgrade) == Validation.PASSED


@pytest.fixture
def provider(cast: Cast, validator: Validator) -> Iterator[Outside]:
    """Run the test's own orchestrator, with a healthy provider whose test fails."""
    with outside() as server:
        type(cast.acme).objects.filter(pk=cast.acme.pk).update(platform_orchestrator_url=server.url)
        server.answer("/api/v1/llm-providers/status", {"providers": {"openai": {"status": "healthy"}}})
        server.answer("/api/v1/llm-providers/openai/test", {"error": {"code": "TEST_FAILED"}}, status=500)
        yield server


def completions(server: Outside) -> int:
    return sum(1 for request in server.requests if request.startswith("POST "))


def test_a_completion_is_tried_at_most_five_times_with_backoff(
    cast: Cast, engine: Engine, validator: Validator, provider: Outside
) -> None:
    upgrade = roll_out(cast, engine)
    made, since_last, gaps = 0, 0, []
    validator.step()
    for _ in range(85):
        if completions(provider) > made:
            made = completions(provider)
            gaps.append(since_last)
            since_last = 0
        validator.elapse(20)
        since_last += 20
        validator.step()

    assert gaps == [0, 60, 120, 240, 480]
    assert (made, completions(provider)) == (5, 5)
    assert (row(upgrade, "provider_path").status, row(upgrade, "provider_path").evidence["tries"]) == ("fail", 5)


def test_a_successful_completion_is_requested_once_per_run(
    cast: Cast, engine: Engine, validator: Validator, provider: Outside
) -> None:
    provider.answer("/api/v1/llm-providers/openai/test", {"status": "success", "provider": "openai"})
    upgrade = roll_out(cast, engine)
    validator.run(seconds=200)
    assert completions(provider) == 1
    validator.elapse(1800)
    validator.step()

    probe_again(upgrade, actor=cast.admin)
    validator.run(seconds=100)

    assert completions(provider) == 2
    assert row(upgrade, "provider_path").evidence["tries"] == 1


def test_a_try_without_a_provider_is_not_counted(
    cast: Cast, engine: Engine, validator: Validator, provider: Outside
) -> None:
    provider.answer("/api/v1/llm-providers/status", {"providers": {"openai": None}})
    upgrade = roll_out(cast, engine)
    validator.run(seconds=100)
    checked = row(upgrade, "provider_path")
    assert (checked.status, checked.evidence["tries"], completions(provider)) == (CheckStatus.UNKNOWN, 0, 0)

    provider.answer("/api/v1/llm-providers/status", {"providers": {"openai": {"status": "healthy"}}})
    provider.answer("/api/v1/llm-providers/openai/test", {"status": "success"})
    validator.run(seconds=0)

    checked = row(upgrade, "provider_path")
    assert (checked.status, checked.evidence["tries"], completions(provider)) == (CheckStatus.PASS, 1, 1)


# --- monitoring ------------------------------------------------------------------------------------------------------


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


# --- person against probe --------------------------------------------------------------------------------------------


def test_a_probe_never_overwrites_a_signature(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws
) -> None:
    upgrade = roll_out(cast, engine)
    sign(upgrade, cast, "sign_in_page", CheckStatus.FAIL, "The page shows an error to Safari.")
    assert validation(upgrade) == Validation.FAILED

    validator.run(seconds=40)

    signed = row(upgrade, "sign_in_page")
    assert (signed.status, signed.checked_by, signed.note) == (
        CheckStatus.FAIL,
        cast.operator,
        "The page shows an error to Safari.",
    )
    assert validation(upgrade) == Validation.FAILED


def test_a_signature_given_during_its_probe_stays(cast: Cast, engine: Engine, validator: Validator) -> None:
    upgrade = roll_out(cast, engine)
    with outside() as portal:
        type(cast.acme).objects.filter(pk=cast.acme.pk).update(platform_portal_url=portal.url)
        portal.answer("/api/v1/auth/session", {"detail": "Sign in first."}, status=401, seconds=2)
        worker = threading.Thread(target=validate_on_thread, args=(get_run(upgrade).pk,))
        worker.start()
        wait_for(lambda: any("/auth/session" in request for request in portal.requests), seconds=20)

        sign(upgrade, cast, "sign_in_page", CheckStatus.FAIL, "Seen failing.")
        worker.join()

    assert (row(upgrade, "sign_in_page").status, row(upgrade, "sign_in_page").note) == (
        CheckStatus.FAIL,
        "Seen failing.",
    )
    assert matrix(upgrade)["platform_health"] == "unknown"  # the others of the same step were written
    assert row(upgrade, "platform_health").checked_at


def maintain() -> None:
    with tenancy.inside(tenancy.NOTHING):
        maintain_validations()


def validate_on_thread(pk: int) -> None:
    try:
        validate(pk)
    finally:
        connection.close()


def test_a_signed_pass_against_a_failed_probe_is_marked(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws
) -> None:
    upgrade = roll_out(cast, engine)
    platform.set_platform(cast.acme.deployment_stack, "component/llm_router", "unhealthy")
    validator.step()

    sign(upgrade, cast, "platform_health", note="The router is switched off on purpose.")

    signed = row(upgrade, "platform_health")
    assert (signed.status, signed.evidence["probed"], signed.is_against_probe) == (CheckStatus.PASS, "fail", True)


# --- again -----------------------------------------------------------------------------------------------------------


def test_probing_again_can_pass_a_failed_validation(
    cast: Cast, engine: Engine, validator: Validator, platform: LocalAws
) -> None:
    upgrade = roll_out(cast, engine)
    for name in ("sign_in", "licence_usage"):
        sign(upgrade, cast, name)
    platform.set_platform(cast.acme.deployment_stack, "component/llm_router", "unhealthy")
    validator.run(seconds=300)
    validator.elapse(1800)
    validator.step()
    assert validation(upgrade) == Validation.FAILED

    platform.clear_platform()
    probe_again(upgrade, actor=cast.operator)
    assert validation(upgrade) == Validation.NEEDED
    validator.run(seconds=300)

    assert validation(upgrade) == Validation.PASSED
    assert row(upgrade, "sign_in").checked_by == cast.operator


# --- leases ----------------------------------------------------------------------------------------------------------


def test_a_run_is_claimed_by_one_worker(cast: Cast, engine: Engine, validator: Validator) -> None:
    pk = get_run(roll_out(cast, engine)).pk

    assert claim_run(pk)
    assert claim_run(pk) is None
    assert validate(pk) is False


def test_a_worker_that_lost_its_lease_writes_nothing(cast: Cast, engine: Engine, validator: Validator) -> None:
    upgrade = roll_out(cast, engine)
    sleeper = claim_run(get_run(upgrade).pk)
    assert sleeper
    ValidationRun.objects.update(lease_until=None)
    assert claim_run(get_run(upgrade).pk)

    with pytest.raises(LeaseLost):
        step(sleeper)

    assert set(matrix(upgrade).values()) == {"unknown"}
    assert get_messages(upgrade, "check.recorded") == []


def test_the_run_continues_after_a_worker_is_killed(
    cast: Cast, engine: Engine, validator: Validator, provider: Outside
) -> None:
    upgrade = roll_out(cast, engine)
    provider.answer("/api/v1/llm-providers/openai/test", {"status": "success"}, seconds=5)
    step_alone = (
        "import django; django.setup(); from upgrades.checks.validation import validate; "
        f"validate({get_run(upgrade).pk})"
    )
    worker = subprocess.Popen([sys.executable, "-c", step_alone], cwd=ROOT, env=worker_environment())
    wait_for(lambda: completions(provider) == 1, seconds=20)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert set(matrix(upgrade).values()) == {"unknown"}
    assert row(upgrade, "provider_path").evidence["tries"] == 1

    provider.answer("/api/v1/llm-providers/openai/test", {"status": "success"})
    validator.run(seconds=40)
    assert completions(provider) == 1  # the first one counts because it was paid for
    validator.run(seconds=20)

    assert completions(provider) == 2
    assert matrix(upgrade)["provider_path"] == "pass"


def test_a_killed_worker_leaves_no_pass_of_an_earlier_run(
    cast: Cast, engine: Engine, validator: Validator, provider: Outside
) -> None:
    provider.answer("/api/v1/llm-providers/openai/test", {"status": "success"})
    upgrade = roll_out(cast, engine)
    validator.run(seconds=20)
    assert matrix(upgrade)["provider_path"] == "pass"
    validator.elapse(1800)
    validator.step()
    probe_again(upgrade, actor=cast.admin)
    lease = claim_run(get_run(upgrade).pk)
    assert lease

    count_try(lease, row(upgrade, "provider_path"), 1)  # and the worker dies

    assert (row(upgrade, "provider_path").status, row(upgrade, "provider_path").detail) == (
        "unknown",
        "Not checked yet.",
    )
    provider.answer("/api/v1/llm-providers/openai/test", {"error": {"code": "TEST_FAILED"}}, status=500)
    validator.run(seconds=60)
    assert (matrix(upgrade)["provider_path"], completions(provider)) == ("fail", 2)


def worker_environment() -> dict[str, str]:
    database = connection.settings_dict
    url = f"postgresql://{database['USER']}:@/{database['NAME']}?host={database['OPTIONS'].get('host', '')}"
    return {**os.environ, "DJANGO_SETTINGS_MODULE": "portal.settings", "DATABASE_URL": url}


def test_the_sweep_runs_what_no_worker_claimed(
    cast: Cast, engine: Engine, validator: Validator, broker_down: None
) -> None:
    upgrade = roll_out(cast, engine)

    sweep_validations()

    assert matrix(upgrade)["sign_in_page"] == "pass"
    assert get_run(upgrade).lease_until is None


def test_a_suspended_organization_is_no_longer_probed(cast: Cast, engine: Engine, validator: Validator) -> None:
    upgrade = roll_out(cast, engine)
    type(cast.acme).objects.filter(pk=cast.acme.pk).update(is_active=False)

    validator.step()

    assert get_run(upgrade).is_done
    assert matrix(upgrade)["sign_in_page"] == "unknown"
    assert row(upgrade, "monitoring").detail == "Acme Robotics was suspended, so its checks have stopped."
    assert any("Acme Robotics was suspended" in line for line in get_messages(upgrade, "upgrade.validated"))
    assert not any("30 min" in line for line in get_messages(upgrade, "upgrade.validated"))


# --- sweeps ----------------------------------------------------------------------------------------------------------


def test_an_upgrade_ended_by_the_old_release_gets_a_matrix(cast: Cast, validator: Validator) -> None:
    lately = make_upgrade(cast.acme, by=cast.operator)
    long_ago = make_upgrade(cast.acme, by=cast.operator, completed_at=Now() - timedelta(days=2))
    failed = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.FAILED])

    maintain()
    maintain()

    assert [len(matrix(each)) for each in (lately, long_ago, failed)] == [8, 0, 0]
    assert (validation(lately), validation(long_ago)) == (Validation.NEEDED, Validation.NONE)
    assert ValidationRun.objects.count() == 1


def late(upgrade: Upgrade, *, minutes: int) -> None:
    Upgrade.objects.filter(pk=upgrade.pk).update(completed_at=Now() - timedelta(minutes=minutes))


def test_a_missing_validation_is_reminded_of_once(cast: Cast, engine: Engine, validator: Validator) -> None:
    channel = make_channel(cast.acme, by=cast.admin, events=["upgrade.validation_missing"])
    upgrade = roll_out(cast, engine)
    maintain()
    assert not channel.deliveries.exists()

    late(upgrade, minutes=61)
    maintain()
    maintain()

    delivery = channel.deliveries.get()
    assert (delivery.kind, delivery.subject) == ("upgrade.validation_missing", upgrade.upgrade_id)
    assert "Sign-in works" in delivery.text


def test_a_late_reminder_is_sent_too(cast: Cast, engine: Engine, validator: Validator, settings: Any) -> None:
    settings.UPGRADE_VALIDATION_REMINDER_SECONDS = 3 * 86400
    channel = make_channel(cast.acme, by=cast.admin, events=["upgrade.validation_missing"])
    upgrade = roll_out(cast, engine)
    late(upgrade, minutes=3 * 1440 + 1)
    validator.elapse(3 * 86400)

    maintain()

    assert channel.deliveries.count() == 1


def test_no_reminder_if_validated_or_rolled_over(cast: Cast, engine: Engine, validator: Validator) -> None:
    make_channel(cast.acme, by=cast.admin, events=["upgrade.validation_missing"])
    rolled_over, validated = roll_out(cast, engine), roll_out(cast, engine)
    Upgrade.objects.filter(pk=validated.pk).update(validation=Validation.PASSED)
    late(rolled_over, minutes=61)
    late(validated, minutes=61)

    maintain()

    assert not NotificationDelivery.objects.exists()


def test_a_repeated_step_makes_no_query_per_service(
    cast: Cast, engine: Engine, validator: Validator, django_assert_max_num_queries: Any
) -> None:
    roll_out(cast, engine, "all")
    validator.step()
    validator.elapse(20)

    with django_assert_max_num_queries(22):
        validator.step()
