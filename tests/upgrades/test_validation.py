"""The portal's own validation of an upgrade on the local AWS: what it probes, how it judges, when it ends."""

import threading

import pytest
from django.db import connection

from portal.models import AuditEvent
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.outside import Outside, outside
from tests.processes import wait_for
from tests.upgrades.conftest import Validator, matrix
from tests.upgrades.validations import completions, get_messages, get_run, roll_out, row, sign, validation
from upgrades.checks.validation import validate
from upgrades.commands.sign import probe_again
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import ValidationRun
from upgrades.states import CheckStatus, Status, Validation

pytestmark = pytest.mark.django_db(transaction=True)


AUTOMATIC = ["sign_in_page", "platform_health", "provider_path", "connector_path", "monitoring", "portal_views"]


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
