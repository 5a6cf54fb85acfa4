"""A small run of `make bench-verdicts`: its scripts, its oracle and the engine agree."""

import os
import subprocess
import sys

from bench.oracle import Service, judge, overall
from tests.local_aws import ROOT

MINE = {"action": "UpdateService", "principal": "user/portal", "effect": True, "error": None, "parameters": {}}
DEPLOYED = {**MINE, "sequence": 1, "time": 10.0, "service_deployment_arn": "arn:own"}
OUTSIDERS = {
    **DEPLOYED,
    "principal": "assumed-role/outsider/test",
    "sequence": 2,
    "service_deployment_arn": "arn:theirs",
}


def record(status: str, **fields: str) -> dict[str, object]:
    ended = {"breaker": "MONITORING_COMPLETE", "alarm": "DISABLED", "finished_at": 50.0}
    return {"deployments": [{"arn": "arn:own", "status": status, **ended, **fields}]}


def test_a_few_dozen_rollouts_have_no_wrong_verdict() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PORTAL_TEST_PARTS"}

    ended = subprocess.run(
        [sys.executable, "-m", "bench.verdicts", "--rollouts", "20", "--seed", "11"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "\n0 wrong verdicts in 2" in ended.stdout


def test_oracle_distinguishes_the_outcomes() -> None:
    own, both = Service("c", "s", [DEPLOYED]), Service("c", "s", [DEPLOYED, OUTSIDERS])

    def find_verdict(service: Service, truth: dict[str, object], *, late: bool = False) -> object:
        return judge(service, truth, is_past_deadline=late)

    assert find_verdict(own, record("SUCCESSFUL")) == ("SUCCESS", "completed")
    assert find_verdict(both, record("SUCCESSFUL")) == ("SUCCESS", "completed")
    assert find_verdict(both, record("STOPPED")) == ("FAILED", "superseded")
    assert find_verdict(both, record("STOPPED", breaker="TRIGGERED")) == ("FAILED", "circuit_breaker")
    assert find_verdict(own, record("STOPPED", alarm="TRIGGERED")) == ("FAILED", "alarm")
    assert find_verdict(own, record("ROLLBACK_SUCCESSFUL")) == ("FAILED", "rolled_back")
    assert find_verdict(own, record("ROLLBACK_FAILED")) == ("FAILED", "rollback_failed")
    assert find_verdict(own, record("IN_PROGRESS")) is None
    assert find_verdict(own, record("IN_PROGRESS"), late=True) is None
    assert find_verdict(own, {"deployments": []}) == ("FAILED", "service_missing")


def test_the_oracle_names_who_stopped_it() -> None:
    stop = {
        **MINE,
        "action": "StopServiceDeployment",
        "sequence": 3,
        "parameters": {"serviceDeploymentArn": "arn:own"},
    }
    by_outsider = {**stop, "principal": "assumed-role/outsider/test"}

    def verdict(*stops: dict[str, object], **fields: str) -> object:
        truth = record("ROLLBACK_SUCCESSFUL", **fields)
        return judge(Service("c", "s", [DEPLOYED, *stops]), truth, is_past_deadline=False)

    assert verdict(stop) == ("FAILED", "stopped_by_user")
    assert verdict(by_outsider, stop) == ("FAILED", "rolled_back")
    assert verdict(stop, breaker="TRIGGERED") == ("FAILED", "rolled_back")


def test_the_oracle_adds_up_an_upgrade() -> None:
    good, bad, off = ("SUCCESS", "completed"), ("FAILED", "rolled_back"), ("SKIPPED", "disabled")

    assert overall([good, off]) == "SUCCESS"
    assert overall([good, bad]) == "PARTIAL"
    assert overall([bad, off]) == overall([off]) == "FAILED"
