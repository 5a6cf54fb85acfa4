"""Runs of the validation: leases, workers that die, sweeps and reminders."""

import os
import signal
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now

from portal.leases import LeaseLost
from portal.models.notifications import NotificationDelivery
from tests.conftest import Cast, Engine
from tests.local_aws import ROOT
from tests.notifications.conftest import make_channel
from tests.outside import Outside
from tests.processes import wait_for
from tests.upgrades.conftest import Validator, make_upgrade, matrix
from tests.upgrades.validations import completions, get_messages, get_run, maintain, roll_out, row, validation
from upgrades.checks.validation import claim_run, count_try, step, validate
from upgrades.commands.sign import probe_again
from upgrades.models import Upgrade, ValidationRun
from upgrades.states import Status, Validation
from upgrades.tasks import sweep_validations

pytestmark = pytest.mark.django_db(transaction=True)


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
