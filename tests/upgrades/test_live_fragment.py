"""The live block of an upgrade: what changes it changes its ETag, and else it costs a 304."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from django.db.models import Model
from django.test import Client

from portal.models import Membership, Organization, User
from portal.tasks import record_heartbeat
from tests.conftest import Cast, revise_each_field
from tests.upgrades.conftest import make_upgrade
from tests.upgrades.test_decisions import set_pause
from upgrades.checks.matrix import open_matrix
from upgrades.events import record_event
from upgrades.models import Decision, Upgrade, UpgradeCheck, UpgradeEvent, ValidationRun
from upgrades.states import EventKind, Status

SignIn = Callable[[User], Client]
UNSEEN = import_module("upgrades.migrations.0027_revisions").UNSEEN


@pytest.fixture
def running(cast: Cast) -> Upgrade:
    """Return an upgrade that waits for a decision, with a decision of an earlier pause, and with checks."""
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    set_pause(upgrade)
    open_matrix(upgrade)
    made = {"decided_by": cast.admin, "decided_by_email": cast.admin.email, "action": "continue", "hook_id": "earlier"}
    Decision.objects.create(organization=cast.acme, rollout=upgrade.rollouts.get(), **made)
    return upgrade


def poll(client: Client, upgrade: Upgrade, tag: str = "") -> Any:
    headers = {"HX-Request": "true", "HX-Target": "live", "If-None-Match": tag}
    return client.get(f"/o/acme/upgrades/{upgrade.upgrade_id}/", headers=headers)


def test_each_shown_column_counts_a_revision(running: Upgrade) -> None:
    rollout = running.rollouts.get()
    check, run = UpgradeCheck.objects.all()[0], ValidationRun.objects.get()
    rows: dict[str, Model] = {"upgrade": running, "rollout": rollout, "upgradecheck": check, "validationrun": run}
    rows["decision"] = Decision.objects.get()
    # `phase` and the wanted_ columns have constraints of their own.
    omit = ("organization", "upgrade", "rollout", "rolls_back", "phase", "wanted_image", "wanted_task_definition")

    unseen = {name: revise_each_field(row, omit=omit) for name, row in rows.items()}

    assert unseen == {name: set(columns) for name, (_, columns) in UNSEEN.items()}


def roll_back(upgrade: Upgrade) -> None:
    make_upgrade(upgrade.organization, by=upgrade.initiated_by, target="orchestrator", rolls_back=upgrade)


def add_ecs_event(upgrade: Upgrade) -> None:
    rollout = upgrade.rollouts.get()
    UpgradeEvent.objects.create(
        organization=upgrade.organization, rollout=rollout, kind="ecs", ecs_event_id="1", message="has started 1 tasks"
    )


CHANGES: dict[str, Callable[[Upgrade], object]] = {
    "upgrade": lambda _: Upgrade.objects.update(stop_requested_at="2026-05-01T12:00:00Z"),
    "counts": lambda upgrade: upgrade.rollouts.update(target_running=2),
    "event": lambda upgrade: record_event(upgrade, EventKind.STOP_REQUESTED, "Stop"),
    "event of ECS": add_ecs_event,
    "check": lambda _: UpgradeCheck.objects.update(status="pass"),
    "validation": lambda _: ValidationRun.objects.update(is_done=True),
    "decision": lambda _: Decision.objects.update(error="refused"),
    "rollback": roll_back,
    "setting": lambda _: Organization.objects.update(requires_second_approver=True),
    "role": lambda _: Membership.objects.filter(user__email="operator@example.com").update(role="viewer"),
    "role of an approver": lambda _: Membership.objects.filter(user__email="admin@example.com").update(role="viewer"),
    "silent runner": lambda _: record_heartbeat("worker"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_sent(cast: Cast, client_for: SignIn, running: Upgrade, change: str, time_machine: Any) -> None:
    time_machine.move_to(running.created_at, tick=False)
    client = client_for(cast.operator)
    first = poll(client, running)

    assert poll(client, running, first["ETag"]).status_code == 304
    CHANGES[change](running)

    assert poll(client, running, first["ETag"]).status_code == 200


def test_the_time_left_is_counted_again_after_half_a_minute(
    cast: Cast, client_for: SignIn, running: Upgrade, time_machine: Any
) -> None:
    time_machine.move_to(running.created_at, tick=False)
    client = client_for(cast.viewer)
    first = poll(client, running)

    time_machine.shift(31)

    assert poll(client, running, first["ETag"]).status_code == 200


def test_an_unchanged_poll_costs_one_statement(
    cast: Cast, client_for: SignIn, running: Upgrade, time_machine: Any, django_assert_num_queries: Any
) -> None:
    time_machine.move_to(running.created_at, tick=False)
    client = client_for(cast.viewer)
    first = poll(client, running)

    with django_assert_num_queries(2):  # the session with its person; the organization with the revisions
        assert poll(client, running, first["ETag"]).status_code == 304
