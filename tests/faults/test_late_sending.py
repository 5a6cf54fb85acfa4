"""A worker that stands still between its lease and the sending of UpdateService sends nothing."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from portal.aws.credentials import client
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from upgrades.commands.trigger import trigger_upgrade
from upgrades.states import Status

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_call_is_not_sent_long_after_its_lease(
    cast: Cast, engine: Engine, platform: LocalAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    frozen = {"seconds": 0.0}
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + frozen["seconds"])
    monkeypatch.setattr("portal.aws.ecs.update.time", clock)

    def freeze(**_: Any) -> None:
        frozen["seconds"] += 60

    events = client(upgrade.aws_target, "ecs", writes=True).meta.events
    events.register("before-sign.ecs.UpdateService", freeze, unique_id="freeze")
    engine.step()
    events.unregister("before-sign.ecs.UpdateService", unique_id="freeze")

    assert platform.ledger(action="UpdateService", cluster=cast.acme.cluster) == []
    assert "stood still" in (upgrade.rollouts.get().check_error or "")
    assert engine.run(upgrade).status == Status.SUCCESS
    assert len(platform.ledger(action="UpdateService", cluster=cast.acme.cluster)) == 1
