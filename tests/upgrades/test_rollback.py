"""Rolling an upgrade back: first through both page and API, then what only one of them has, then the engine."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.errors import PortalError
from portal.idempotency import IdempotencyKey
from portal.models import AuditEvent, Organization, User
from tests.conftest import Cast, audited_changes
from tests.local_aws import LocalAws
from tests.upgrades.conftest import (
    UPGRADE,
    Door,
    assert_refused,
    deploy,
    make_upgrade,
    post_json,
    register,
    upgraded,
)
from tests.upgrades.rollbacks import get_page_url
from upgrades.commands.rollback import rollback_upgrade
from upgrades.inventory.ecs_services import service_name
from upgrades.models import Kind, Rollout, Upgrade, UpgradeEvent
from upgrades.rollback_plan import Can, plan_rollback
from upgrades.states import EventKind, Outcome, Phase, Status, get_services

SignIn = Callable[[User], Client]


def written() -> tuple[int, ...]:
    """Count the rows of every table that a rollback writes."""
    counts = (model.objects.count() for model in (Upgrade, Rollout, UpgradeEvent, IdempotencyKey))
    return (*counts, audited_changes().count())


def test_a_rollback_upgrades_to_the_recorded_task_definition(
    cast: Cast, done: Upgrade, client_for: SignIn, door: Door
) -> None:
    response = door.rollback(client_for(cast.operator), cast.acme, done.upgrade_id, reason="OPS-2: logins fail")

    assert response.status_code == door.accepted
    rollback = door.find_upgrade(response)
    assert (rollback.kind, rollback.rolls_back, rollback.target) == (Kind.ROLLBACK, done, "agent")
    assert (rollback.version, rollback.force_new_deployment) == ("v9.9.0", False)
    assert (rollback.reason, rollback.initiated_by) == ("OPS-2: logins fail", cast.operator)
    rollout = rollback.rollouts.get()
    assert rollout.wanted_task_definition == done.rollouts.get().previous_task_definition
    assert (rollout.phase, rollout.status) == (Phase.DUE, Status.PENDING)


def test_all_services_roll_back_in_rolling_order(cast: Cast, done_all: Upgrade, client_for: SignIn, door: Door) -> None:
    rollback = door.find_upgrade(door.rollback(client_for(cast.operator), cast.acme, done_all.upgrade_id))

    assert (rollback.target, rollback.version) == ("all", "v9.9.0")
    assert list(rollback.rollouts.values_list("service", "phase")) == [
        ("agent", Phase.DUE),
        ("orchestrator", Phase.WAITING),
        ("customer-portal", Phase.WAITING),
    ]


def test_only_services_that_advanced_roll_back(cast: Cast, platform: LocalAws, client_for: SignIn, door: Door) -> None:
    partial = upgraded(cast, platform, "all", [Status.SUCCESS, Status.FAILED, Status.FAILED])

    rollback = door.find_upgrade(door.rollback(client_for(cast.operator), cast.acme, partial.upgrade_id))

    assert [rollout.service for rollout in rollback.rollouts.all()] == ["agent"]
    assert rollback.target == "agent"


def test_versions_that_differ_are_shown_as_previous(
    cast: Cast, done_all: Upgrade, client_for: SignIn, door: Door
) -> None:
    done_all.rollouts.filter(service="agent").update(from_version="v9.8.0")

    rollback = door.find_upgrade(door.rollback(client_for(cast.operator), cast.acme, done_all.upgrade_id))

    assert rollback.version == "previous"


def test_nothing_is_written_to_aws_before_the_engine(
    cast: Cast, platform: LocalAws, done: Upgrade, client_for: SignIn, door: Door
) -> None:
    before = platform.ledger(cluster=cast.acme.cluster)

    door.rollback(client_for(cast.operator), cast.acme, done.upgrade_id)

    assert platform.ledger(cluster=cast.acme.cluster) == before


@pytest.mark.parametrize("action", ["*", "DescribeServices", "DescribeTaskDefinition"])
@pytest.mark.parametrize("fault", ["throttle", "server_error", "access_denied"])
def test_a_rollback_is_recorded_when_ecs_does_not_answer(
    cast: Cast, platform: LocalAws, done: Upgrade, client_for: SignIn, door: Door, action: str, fault: str
) -> None:
    platform.fault(fault, action=action, account="111111111111")

    # Denied access fails pre-flight. A missing answer is only unknown, which blocks nothing.
    override = {"override_reason": "it must be rolled back anyway"} if fault == "access_denied" else {}

    response = door.rollback(client_for(cast.operator), cast.acme, done.upgrade_id, **override)

    assert response.status_code == door.accepted
    assert door.find_upgrade(response).rollouts.get().wanted_task_definition


def test_the_same_key_gives_the_same_rollback(cast: Cast, done: Upgrade, client_for: SignIn, door: Door) -> None:
    client = client_for(cast.operator)
    first = door.rollback(client, cast.acme, done.upgrade_id, key="k-1")

    again = door.rollback(client, cast.acme, done.upgrade_id, key="k-1")

    assert door.find_upgrade(again) == door.find_upgrade(first)
    assert Upgrade.objects.filter(kind=Kind.ROLLBACK).count() == 1


def test_the_same_key_for_another_reason_is_a_mismatch(
    cast: Cast, done: Upgrade, client_for: SignIn, door: Door
) -> None:
    client = client_for(cast.operator)
    door.rollback(client, cast.acme, done.upgrade_id, key="k-1")

    assert door.rollback(client, cast.acme, done.upgrade_id, key="k-1", reason="another").status_code == 422


# --- who may not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("person", ["outsider", "stranger", "newcomer", "staff"])
def test_outsider_gets_404(cast: Cast, done: Upgrade, client_for: SignIn, door: Door, person: str) -> None:
    before = written()

    response = door.rollback(client_for(getattr(cast, person)), cast.acme, done.upgrade_id)

    assert response.status_code == 404
    assert done.upgrade_id not in door.get_text(response)
    assert written() == before


def test_viewer_gets_403(cast: Cast, done: Upgrade, client_for: SignIn, door: Door) -> None:
    before = written()

    assert door.rollback(client_for(cast.viewer), cast.acme, done.upgrade_id).status_code == 403
    assert written() == before


def test_anonymous_is_turned_away(cast: Cast, done: Upgrade, door: Door) -> None:
    before = written()

    assert door.rollback(Client(), cast.acme, done.upgrade_id).status_code in (302, 401)
    assert written() == before


@pytest.mark.parametrize(("person", "status"), [("outsider", 404), ("stranger", 404), ("viewer", 403)])
def test_the_command_refuses_by_itself(cast: Cast, done: Upgrade, person: str, status: int) -> None:
    before = written()

    with pytest.raises(PortalError) as refused:
        rollback_upgrade(done, actor=getattr(cast, person))

    assert refused.value.status == status
    assert written() == before


# --- wrong state ---------------------------------------------------------------------------------------------------


def assert_nothing_goes_back(response: Any, door: Door, why: str, status: int = 400) -> None:
    assert response.status_code == status
    assert why in door.get_text(response)
    assert not Upgrade.objects.filter(kind=Kind.ROLLBACK).exists()
    assert not audited_changes().exists()


def test_an_open_upgrade_is_named(cast: Cast, platform: LocalAws, client_for: SignIn, door: Door) -> None:
    open_one = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])

    response = door.rollback(client_for(cast.operator), cast.acme, open_one.upgrade_id)

    assert_nothing_goes_back(response, door, f"{open_one.upgrade_id} has not ended", 409)


def test_a_service_in_use_names_what_blocks(cast: Cast, done: Upgrade, client_for: SignIn, door: Door) -> None:
    blocker = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])

    response = door.rollback(client_for(cast.operator), cast.acme, done.upgrade_id)

    assert_nothing_goes_back(response, door, blocker.upgrade_id, 409)


def test_a_blocked_page_links_to_the_blocker_without_a_form(cast: Cast, done: Upgrade, client_for: SignIn) -> None:
    blocker = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])

    text = client_for(cast.operator).get(get_page_url(done)).content.decode()

    assert f"{blocker.upgrade_id} is rolling its services now. Wait for it or stop it." in text
    assert f'<a href="/o/acme/upgrades/{blocker.upgrade_id}/">Watch the open upgrade</a>' in text
    assert "Nothing can be rolled back." not in text
    assert 'id="start-title"' not in text


@pytest.mark.parametrize("status", [Status.FAILED, Status.SKIPPED])
def test_a_service_that_did_not_advance_cannot_roll_back(
    cast: Cast, platform: LocalAws, client_for: SignIn, door: Door, status: Status
) -> None:
    ended = make_upgrade(cast.acme, by=cast.operator, statuses=[status])

    response = door.rollback(client_for(cast.operator), cast.acme, ended.upgrade_id)

    assert_nothing_goes_back(response, door, "it did not advance")


def test_a_rollout_without_earlier_task_definition_is_refused(
    cast: Cast, done: Upgrade, client_for: SignIn, door: Door
) -> None:
    done.rollouts.update(previous_task_definition=None)

    response = door.rollback(client_for(cast.operator), cast.acme, done.upgrade_id)

    assert_nothing_goes_back(response, door, "its earlier task definition was not recorded")


def test_an_unchanged_task_definition_cannot_be_rolled_back(
    cast: Cast, done: Upgrade, client_for: SignIn, door: Door
) -> None:
    done.rollouts.update(previous_task_definition=done.rollouts.get().task_definition)

    response = door.rollback(client_for(cast.operator), cast.acme, done.upgrade_id)

    assert_nothing_goes_back(response, door, "no earlier one to go back to")


def test_a_deregistered_revision_cannot_be_rolled_to(
    cast: Cast, platform: LocalAws, done: Upgrade, client_for: SignIn, door: Door
) -> None:
    earlier = done.rollouts.get().previous_task_definition
    platform.client().deregister_task_definition(taskDefinition=earlier)

    response = door.rollback(client_for(cast.operator), cast.acme, done.upgrade_id)

    assert_nothing_goes_back(response, door, "was deregistered in ECS")


def test_a_service_deployed_since_is_refused(
    cast: Cast, platform: LocalAws, done: Upgrade, client_for: SignIn, door: Door
) -> None:
    deploy(platform, cast.acme, "agent", register(platform, cast.acme, "agent", "v9.9.2"))

    response = door.rollback(client_for(cast.operator), cast.acme, done.upgrade_id)

    assert_nothing_goes_back(response, door, "(v9.9.2) now, not")
    assert "It was deployed outside the portal since." in door.get_text(response)


def test_a_service_rolled_by_a_later_upgrade_names_it(
    cast: Cast, platform: LocalAws, done: Upgrade, client_for: SignIn, door: Door
) -> None:
    later = upgraded(cast, platform, "agent")
    later.rollouts.update(started_at=later.completed_at)

    response = door.rollback(client_for(cast.operator), cast.acme, done.upgrade_id)

    assert_nothing_goes_back(response, door, f"{later.upgrade_id} rolled it since.")


def test_a_service_that_already_went_back_is_refused(
    cast: Cast, platform: LocalAws, done: Upgrade, client_for: SignIn, door: Door
) -> None:
    deploy(platform, cast.acme, "agent", str(done.rollouts.get().previous_task_definition))

    response = door.rollback(client_for(cast.operator), cast.acme, done.upgrade_id)

    assert_nothing_goes_back(response, door, "it already runs")


def test_missing_and_disabled_services_are_left_out(
    cast: Cast, platform: LocalAws, done_all: Upgrade, client_for: SignIn, door: Door
) -> None:
    names = {service: service_name(cast.acme, service) for service in get_services("all")}
    client = platform.client()
    client.delete_service(cluster=cast.acme.cluster, service=names["agent"], force=True)
    client.update_service(cluster=cast.acme.cluster, service=names["orchestrator"], desiredCount=0)
    platform.advance(600)

    plan = plan_rollback(done_all)
    rollback = door.find_upgrade(door.rollback(client_for(cast.operator), cast.acme, done_all.upgrade_id))

    assert [line.can for line in plan.lines] == [Can.NO, Can.NO, Can.YES]
    assert "no longer exists in" in plan.lines[0].why
    assert "is disabled (desired count is 0)" in plan.lines[1].why
    assert [rollout.service for rollout in rollback.rollouts.all()] == ["customer-portal"]


def test_an_organization_with_a_new_cluster_is_refused(
    cast: Cast, done: Upgrade, client_for: SignIn, door: Door
) -> None:
    Organization.objects.filter(pk=cast.acme.pk).update(deployment_cluster="elsewhere")

    response = door.rollback(client_for(cast.operator), cast.acme, done.upgrade_id)

    assert_nothing_goes_back(response, door, "now uses another one")


# --- the events written --------------------------------------------------------------------------------------------


def test_a_rollback_is_audited_and_noted_on_the_upgrade(
    cast: Cast, done: Upgrade, client_for: SignIn, door: Door
) -> None:
    rollback = door.find_upgrade(door.rollback(client_for(cast.operator), cast.acme, done.upgrade_id, reason="OPS-2"))

    audited = AuditEvent.objects.get(subject=rollback.upgrade_id)
    assert (audited.kind, audited.actor) == ("upgrade.rollback_triggered", cast.operator)
    assert (audited.data["rolls_back"], audited.data["reason"]) == (done.upgrade_id, "OPS-2")
    told = UpgradeEvent.objects.get(upgrade=done, kind=EventKind.ROLLED_BACK)
    assert rollback.upgrade_id in told.message
    assert told.actor_email == cast.operator.email


# --- the API's own -------------------------------------------------------------------------------------------------


def test_the_api_answers_as_the_trigger_does(cast: Cast, done: Upgrade, client_for: SignIn) -> None:
    response = post_json(client_for(cast.operator), f"{UPGRADE}/{done.upgrade_id}/rollback", {})

    body = response.json()
    assert response.headers["Location"] == body["status_url"] == f"{UPGRADE}/{body['upgrade_id']}"
    assert [entry["service"] for entry in body["services"]] == ["agent"]
    assert body["organization"] == "acme"


@pytest.mark.parametrize("body", [{"services": ["agent"]}, {"reason": 7}, {"reason": "x" * 2001}, ["agent"]])
def test_the_api_refuses_another_body(cast: Cast, done: Upgrade, client_for: SignIn, body: Any) -> None:
    response = post_json(client_for(cast.operator), f"{UPGRADE}/{done.upgrade_id}/rollback", body)

    assert response.status_code == 400
    assert not Upgrade.objects.filter(kind=Kind.ROLLBACK).exists()


def test_the_api_names_code_and_blocker(cast: Cast, done: Upgrade, client_for: SignIn) -> None:
    client, path = client_for(cast.operator), f"{UPGRADE}/{done.upgrade_id}/rollback"
    first = post_json(client, path, {}).json()

    blocked = assert_refused(post_json(client, path, {}), 409, "upgrade_in_progress")
    Rollout.objects.update(phase=Phase.DONE)
    done.rollouts.update(outcome=Outcome.ROLLED_BACK)
    assert_refused(post_json(client, path, {}), 400, "rollback_impossible")

    assert blocked["upgrade_id"] == first["upgrade_id"]
