"""Invariants of the engine under random calls and faults."""

import json
import random
from typing import Any

import pytest

from portal.sandbox import replies
from portal.sandbox.engine import Engine, RevisionPlan
from portal.sandbox.errors import AwsError
from portal.sandbox.records import Service, ServiceKey, dump_service, load_service

KEY = ServiceKey("111111111111", "eu-central-1", "c", "web")
FAULTS = ("crash", "image_pull", "stuck", "no_capacity", "slow", "alarm")


def plan(number: int) -> RevisionPlan:
    container = {"name": "app", "image": f"app:v{number}", "imageDigest": f"sha256:{number}", "cpu": "0", "memory": ""}
    return RevisionPlan(f"arn:aws:ecs:eu-central-1:111111111111:task-definition/f:{number}", [container], "256", "512")


class History:
    """A service with random calls and faults, reproducible from a seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = 1_800_000_000.0
        self.has_faults = True
        self.engine = Engine(lambda: self.now, self.faults)
        breaker = {"enable": self.chance.random() < 0.7, "rollback": self.chance.random() < 0.7}
        minimum, maximum = self.chance.choice([(100, 200), (50, 100), (0, 100), (100, 150), (50, 200)])
        request = {
            "desiredCount": self.chance.choice([1, 2, 3, 5, 10]),
            "deploymentConfiguration": {
                "minimumHealthyPercent": minimum,
                "maximumPercent": maximum,
                "deploymentCircuitBreaker": breaker,
            },
        }
        if self.chance.random() < 0.5:
            self.engine.put_steady(KEY, plan(0), request, age_seconds=100)
        else:
            self.engine.create_service(KEY, plan(0), request, created_by="test")

    def faults(self, _key: ServiceKey, is_rollback: bool) -> list[dict[str, Any]]:
        if not self.has_faults or self.chance.random() < 0.4:
            return []
        kind = "crash" if is_rollback else self.chance.choice(FAULTS)
        return [{"kind": kind, "factor": 3, "task_count": self.chance.choice([None, 1, 3])}]

    def let_something_happen(self) -> Service:
        self.now += self.chance.choice([0, 0.3, 1, 2, 5, 17, 60, 1000])
        service = self.engine.require(KEY)
        what = self.chance.random()
        if what < 0.2:
            change = {"forceNewDeployment": self.chance.random() < 0.5}
            self.engine.update_service(KEY, plan(self.chance.randint(1, 5)), change)
        elif what < 0.3:
            self.engine.update_service(KEY, None, {"desiredCount": self.chance.choice([0, 1, 2, 4, 8])})
        elif what < 0.4:
            self.stop(service.service_deployments[0].arn)
        elif what < 0.5 and service.tasks:
            victim = self.chance.choice(service.tasks).id
            self.engine.stop_task(KEY.account, KEY.region, KEY.cluster, victim, reason="by hand")
        elif what < 0.55:
            self.engine.services[KEY] = load_service(json.loads(dump_service(service)))
        return self.engine.require(KEY)

    def stop(self, arn: str) -> None:
        try:
            self.engine.stop_service_deployment(KEY.account, KEY.region, arn, stop_type="ROLLBACK")
        except AwsError as error:
            if error.code != "ConflictException":
                raise


@pytest.mark.parametrize("seed", range(20))
def test_invariants_hold_in_any_history(seed: int) -> None:
    history = History(seed)

    for _ in range(50):
        service = history.let_something_happen()

        assert [each.status for each in service.deployments].count("PRIMARY") == 1
        listed = {each.id for each in service.deployments}
        assert {task.deployment_id for task in service.tasks if task.status != "STOPPED"} <= listed
        assert all(each.status == "STOP_REQUESTED" for each in service.service_deployments[1:] if each.is_open)
        for each in service.service_deployments:
            times = [at for at in (each.created_at, each.started_at, each.finished_at) if at is not None]
            assert times == sorted(times)
            assert (each.finished_at is None) == each.is_open
            replies.service_deployment_reply(service, each)
        replies.service_reply(service)


@pytest.mark.parametrize("seed", range(20))
def test_good_rollout_completes_after_any_history(seed: int) -> None:
    history = History(seed)
    for _ in range(30):
        history.let_something_happen()

    history.has_faults = False
    room = {"minimumHealthyPercent": 100, "maximumPercent": 200}
    history.engine.update_service(
        KEY, plan(9), {"forceNewDeployment": True, "desiredCount": 3, "deploymentConfiguration": room}
    )
    history.now += 400

    service = history.engine.require(KEY)
    assert service.service_deployments[0].status == "SUCCESSFUL"
    assert [each.status for each in service.tasks if each.status != "STOPPED"] == ["RUNNING"] * 3
    assert not any(each.is_open for each in service.service_deployments)


def test_one_big_step_equals_many_small_ones() -> None:
    ends = []
    for steps in (1, 120):
        history = History(1)
        history.has_faults = False
        history.engine.put_steady(KEY, plan(0), {"desiredCount": 4}, age_seconds=100)
        history.engine.update_service(KEY, plan(1), {})
        for _ in range(steps):
            history.now += 120 / steps
            service = history.engine.require(KEY)
        ends.append((service.service_deployments[0].finished_at, len(service.events), len(service.tasks)))

    assert ends[0] == ends[1]
