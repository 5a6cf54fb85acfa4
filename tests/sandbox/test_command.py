"""`manage.py sandbox`, against a running local AWS."""

import io
import uuid

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from portal.sandbox.management.commands.sandbox import Command
from tests.local_aws import LocalAws


def run(*arguments: str) -> str:
    output = io.StringIO()
    call_command(Command(stdout=output), *arguments)
    return output.getvalue()


@pytest.fixture(autouse=True)
def _endpoint(aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)


def test_fault_is_added_listed_and_cleared(aws: LocalAws) -> None:
    added = run("fault", "add", "slow", "--service", "web", "--factor", "3", "--times", "2", "--rollbacks")
    listed = run("faults")
    fault_id = added.split()[0]
    cleared = run("fault", "clear", fault_id)

    assert added == listed
    assert "slow service=web times=2 rollbacks=True factor=3.0" in added
    assert cleared == "cleared 1\n"
    assert run("faults") == "no faults\n"


def test_alarm_names_and_error_codes_reach_the_fault(aws: LocalAws) -> None:
    run("fault", "add", "alarm", "--alarm-names", "one", "two")
    run("fault", "add", "error", "--code", "ClientException", "--message", "no", "--action", "UpdateService")

    alarm, error = aws.faults()
    assert alarm["alarm_names"] == ["one", "two"]
    assert (error["code"], error["message"], error["action"]) == ("ClientException", "no", "UpdateService")
    assert run("fault", "clear") == "cleared 2\n"


def test_clock_is_shown_and_changed(aws: LocalAws) -> None:
    before = aws.now()

    assert "frozen" in run("clock")
    run("clock", "--advance", "60")

    assert aws.now() == pytest.approx(before + 60)
    run("clock", "--speed", "2", "--unfreeze")
    assert aws.call("GET", "clock")["speed"] == 2
    run("clock", "--speed", "1", "--freeze")


def test_status_and_ledger_show_what_happened(aws: LocalAws) -> None:
    cluster = f"c-{uuid.uuid4().hex[:8]}"
    aws.seed(cluster=cluster, services=[{"name": "web", "desired_count": 2}])
    reply = aws.client().update_service(cluster=cluster, service="web", forceNewDeployment=True)

    assert f"{cluster} web: ACTIVE, 2/2 running, 0 pending" in run("status")
    ledger = run("ledger", "--cluster", cluster)
    assert f"UpdateService 111111111111/eu-central-1/{cluster}/web" in ledger
    assert reply["service"]["deployments"][0]["id"] in ledger


def test_limits_are_turned_on_and_off(aws: LocalAws) -> None:
    assert run("throttling", "on", "--scale", "0.5") == "throttling on, scale 0.5\n"
    assert run("throttling", "off") == "throttling off, scale 1.0\n"


def test_command_shows_the_error_of_the_control_api() -> None:
    with pytest.raises(CommandError, match="`kind` must be one of"):
        run("fault", "add", "explode")


def test_missing_and_wrong_endpoints_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(CommandError, match=r"Cannot reach the local AWS at http://127.0.0.1:9"):
        run("status")

    monkeypatch.delenv("AWS_ENDPOINT_URL")
    with pytest.raises(CommandError, match="AWS_ENDPOINT_URL is not set"):
        run("status")
