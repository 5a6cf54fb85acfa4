"""Rolling an upgrade back: first through both page and API, then what only one of them has, then the engine."""

from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from portal.errors import PortalError
from portal.idempotency import IdempotencyKey
from portal.models import AuditEvent, Membership, Organization, User
from tests.conftest import Cast, Engine, audited_changes
from tests.local_aws import LocalAws
from tests.upgrades.conftest import UPGRADE, Door, assert_refused, make_upgrade, post_json
from tests.upgrades.versions import put_image
from upgrades.commands.rollback import rollback_upgrade
from upgrades.inventory.ecs_services import service_name
from upgrades.models import Kind, Rollout, Upgrade, UpgradeEvent
from upgrades.rollback_plan import Can, plan_rollback
from upgrades.states import EventKind, Outcome, Phase, Status, get_services

SignIn = Callable[[User], Client]


@pytest.fixture
def done(cast: Cast, platform: LocalAws) -> Upgrade:
    """Return an upgrade of acme's agent service from v9.9.0 to v9.9.1."""
    return upgraded(cast, platform, "agent")


@pytest.fixture
def done_all(cast: Cast, platform: LocalAws) -> Upgrade:
    return upgraded(cast, platform, "all")


def upgraded(cast: Cast, platform: LocalAws, target: str, statuses: list[Status] | None = None) -> Upgrade:
    """Create the record of an upgrade from v9.9.0 to v9.9.1, and let ECS run the new revisions."""
    organization = cast.acme
    upgrade = make_upgrade(
        organization,
        by=cast.operator,
        target=target,
        statuses=statuses,
        cluster=organization.cluster,
        region=organization.deployment_region,
        force_new_deployment=False,
        version="v9.9.1",
    )
    for rollout in upgrade.rollouts.filter(status=Status.SUCCESS):
        earlier = running(platform, organization, rollout.service)
        later = register(platform, organization, rollout.service, "v9.9.1")
        deploy(platform, organization, rollout.service, later)
        rollout.previous_task_definition, rollout.from_version = earlier, "v9.9.0"
        rollout.task_definition, rollout.to_version = later, "v9.9.1"
        rollout.save()
    platform.advance(300)
    return upgrade


def register(platform: LocalAws, organization: Organization, service: str, version: str) -> str:
    family = f"{organization.deployment_stack}-{service}"
    definition = platform.client().describe_task_definition(taskDefinition=family)["taskDefinition"]
    containers = definition["containerDefinitions"]
    image = containers[0]["image"].rpartition(":")[0] + f":{version}"
    containers[0] = containers[0] | {"image": image, "memory": 512}
    reply = platform.client().register_task_definition(family=family, containerDefinitions=containers)
    return str(reply["taskDefinition"]["taskDefinitionArn"])


def deploy(platform: LocalAws, organization: Organization, service: str, definition: str) -> None:
    name = service_name(organization, service)
    platform.client().update_service(cluster=organization.cluster, service=name, taskDefinition=definition)


def running(platform: LocalAws, organization: Organization, service: str) -> str:
    name = service_name(organization, service)
    reply = platform.client().describe_services(cluster=organization.cluster, services=[name])
    return str(reply["services"][0]["taskDefinition"])


def written() -> tuple[int, ...]:
    """Count the rows of every table that a rollback writes."""
    counts = (model.objects.count() for model in (Upgrade, Rollout, UpgradeEvent, IdempotencyKey))
    return (*counts, audited_changes().count())


def roll_back(cast: Cast, upgrade: Upgrade) -> Upgrade:
    return rollback_upgrade(upgrade, actor=cast.operator)


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
    assert f'<a href="/o/acme/upgrades/{blocker.upgrade_id}/">Watch {blocker.upgrade_id}</a>' in text
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


# --- the page's own ------------------------------------------------------------------------------------------------


def get_page_url(upgrade: Upgrade) -> str:
    return f"/o/acme/upgrades/{upgrade.upgrade_id}/rollback"


def test_the_page_says_what_it_will_do(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    partial = upgraded(cast, platform, "all", [Status.SUCCESS, Status.SUCCESS, Status.FAILED])
    deploy(platform, cast.acme, "orchestrator", register(platform, cast.acme, "orchestrator", "v9.9.2"))

    text = client_for(cast.operator).get(get_page_url(partial)).content.decode()

    assert "Roll back agent service</button>" in text
    for said in (
        "v9.9.1",
        "v9.9.0",
        "4 of 4 running",
        "(v9.9.2) now",
        "it did not advance",
        "The database is not rolled",
    ):
        assert said in text
    assert "to confirm" not in text
    assert not Upgrade.objects.filter(kind=Kind.ROLLBACK).exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("registry")
def test_the_page_warns_if_the_earlier_tag_has_moved(
    cast: Cast, engine: Engine, registry: dict[str, str], platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    client = client_for(cast.operator)
    done = engine.run(door.find_upgrade(door.trigger(client, cast.acme, service="agent", version="v9.9.1")))
    before = client.get(get_page_url(done)).content.decode()
    assert "Only the image changes" in before
    assert "would not run the same image as before" not in before

    moved = put_image(platform, ["rebuilt", "v9.9.0"])
    cache.clear()  # reads of the registry are cached for a minute

    text = " ".join(client.get(get_page_url(done)).content.decode().split())
    assert "Agent service would not run the same image as before." in text
    assert f'{moved[:19]}</span>, not <span class="mono">{registry["agent:v9.9.0"][:19]}</span>' in text


def test_the_page_says_that_ecs_does_not_answer(
    cast: Cast, platform: LocalAws, done: Upgrade, client_for: SignIn
) -> None:
    platform.fault("server_error", action="*", account="111111111111")

    text = client_for(cast.operator).get(get_page_url(done)).content.decode()

    assert "ECS could not be read" in text
    assert "Not known" in text
    assert "Roll back agent service</button>" in text


def test_several_services_need_the_slug_typed(cast: Cast, done_all: Upgrade, client_for: SignIn) -> None:
    client = client_for(cast.operator)
    sent = {"services": "agent orchestrator customer-portal", "idempotency_key": "k"}

    refused = client.post(get_page_url(done_all), sent | {"confirmation": "globex"})
    accepted = client.post(get_page_url(done_all), sent | {"confirmation": "acme"})

    assert refused.status_code == 422
    assert "Type acme to confirm that this is the right organization." in refused.content.decode()
    assert accepted.status_code == 302


def test_a_plan_that_changed_is_shown_again(
    cast: Cast, platform: LocalAws, done_all: Upgrade, client_for: SignIn
) -> None:
    deploy(platform, cast.acme, "agent", register(platform, cast.acme, "agent", "v9.9.2"))
    sent = {"services": "agent orchestrator customer-portal", "idempotency_key": "k", "confirmation": "acme"}

    response = client_for(cast.operator).post(get_page_url(done_all), sent)

    text = response.content.decode()
    assert response.status_code == 409
    assert "has changed since" in text
    assert 'name="services" value="orchestrator customer-portal"' in text
    assert not Upgrade.objects.filter(kind=Kind.ROLLBACK).exists()


def test_a_viewer_reads_the_plan_and_why_not(cast: Cast, done: Upgrade, client_for: SignIn) -> None:
    text = client_for(cast.viewer).get(get_page_url(done)).content.decode()

    assert "You can view this plan, but not roll back." in text
    assert "Rolls back" in text
    assert "</button>" not in text.partition('<h2 id="start-title">')[2].partition("</section>")[0]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("registry")
def test_from_a_version_up_and_back_down_again(
    cast: Cast, engine: Engine, platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    client = client_for(cast.operator)
    before = {service: running(platform, cast.acme, service) for service in get_services("all")}
    up = engine.run(door.find_upgrade(door.trigger(client, cast.acme, service="all", version="v9.9.1")))

    down = engine.run(door.find_upgrade(door.rollback(client, cast.acme, up.upgrade_id)))

    assert (up.status, down.status, down.version) == (Status.SUCCESS, Status.SUCCESS, "v9.9.0")
    assert [(rollout.from_version, rollout.to_version) for rollout in down.rollouts.all()] == [("v9.9.1", "v9.9.0")] * 3
    assert {service: running(platform, cast.acme, service) for service in get_services("all")} == before


# --- the engine ----------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_services_run_the_earlier_revisions_again(
    cast: Cast, engine: Engine, platform: LocalAws, done_all: Upgrade
) -> None:
    rollback = engine.run(roll_back(cast, done_all))

    assert rollback.status == Status.SUCCESS
    assert rollback.message == "Rolled back: agent service, orchestrator, customer portal."
    for rollout in rollback.rollouts.all():
        original = done_all.rollouts.get(service=rollout.service)
        assert rollout.outcome == Outcome.COMPLETED
        assert (rollout.from_version, rollout.to_version) == ("v9.9.1", "v9.9.0")
        assert rollout.previous_task_definition == original.task_definition
        assert running(platform, cast.acme, rollout.service) == original.previous_task_definition


@pytest.mark.django_db(transaction=True)
def test_a_rollback_is_rolled_back_by_the_same_rules(
    cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade
) -> None:
    rollback = engine.run(roll_back(cast, done))

    again = engine.run(roll_back(cast, rollback))

    assert (again.status, again.version, again.rolls_back) == (Status.SUCCESS, "v9.9.1", rollback)
    assert running(platform, cast.acme, "agent") == done.rollouts.get().task_definition


@pytest.mark.django_db(transaction=True)
def test_what_others_deployed_since_the_trigger_is_not_touched(
    cast: Cast, engine: Engine, platform: LocalAws, done_all: Upgrade
) -> None:
    rollback = roll_back(cast, done_all)
    deploy(platform, cast.acme, "agent", register(platform, cast.acme, "agent", "v9.9.2"))
    before = len(platform.ledger(action="UpdateService", cluster=cast.acme.cluster))

    engine.run(rollback)

    assert [(rollout.status, rollout.outcome) for rollout in rollback.rollouts.all()] == [
        (Status.FAILED, Outcome.CHANGED_SINCE),
        (Status.FAILED, Outcome.NOT_ATTEMPTED),
        (Status.FAILED, Outcome.NOT_ATTEMPTED),
    ]
    assert "(v9.9.2), which is not what the upgrade left. Nothing was changed." in (rollback.error_message or "")
    assert len(platform.ledger(action="UpdateService", cluster=cast.acme.cluster)) == before


@pytest.mark.django_db(transaction=True)
def test_a_service_that_went_back_meanwhile_is_no_change(
    cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade
) -> None:
    rollback = roll_back(cast, done)
    deploy(platform, cast.acme, "agent", str(done.rollouts.get().previous_task_definition))
    platform.advance(300)

    engine.run(rollback)

    assert rollback.rollouts.get().outcome == Outcome.NO_CHANGE


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("has_failed", [False, True])
def test_an_unproven_earlier_deployment_is_rolled_again(
    cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade, has_failed: bool
) -> None:
    """Covers an earlier revision that others deployed meanwhile, which has not completed or has failed."""
    earlier, rollback = str(done.rollouts.get().previous_task_definition), roll_back(cast, done)
    place = {"cluster": cast.acme.cluster, "service": service_name(cast.acme, "agent")}
    if has_failed:
        breaker = {"deploymentCircuitBreaker": {"enable": True, "rollback": False}}
        platform.client().update_service(**place, deploymentConfiguration=breaker)
        platform.fault("crash", **place, times=1)
    deploy(platform, cast.acme, "agent", earlier)
    platform.advance(300 if has_failed else 0)

    engine.run(rollback)

    rollout = rollback.rollouts.get()
    assert (rollout.status, rollout.outcome, rollout.attempts) == (Status.SUCCESS, Outcome.COMPLETED, 1)
    assert running(platform, cast.acme, "agent") == earlier


@pytest.mark.django_db(transaction=True)
def test_ecs_refuses_a_revision_deregistered_meanwhile(
    cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade
) -> None:
    rollback = roll_back(cast, done)
    platform.client().deregister_task_definition(taskDefinition=done.rollouts.get().previous_task_definition)

    engine.run(rollback)

    assert rollback.rollouts.get().outcome == Outcome.REFUSED
    assert "it may be deregistered" in (rollback.error_message or "")
    assert running(platform, cast.acme, "agent") == done.rollouts.get().task_definition


@pytest.mark.django_db(transaction=True)
def test_a_lost_reply_starts_no_second_rollback(cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade) -> None:
    before = len(platform.ledger(action="UpdateService", cluster=cast.acme.cluster, effect=True))
    platform.fault("reply_lost", action="UpdateService", times=1)

    rollback = engine.run(roll_back(cast, done))

    assert rollback.rollouts.get().outcome == Outcome.COMPLETED
    assert len(platform.ledger(action="UpdateService", cluster=cast.acme.cluster, effect=True)) == before + 1


@pytest.mark.django_db(transaction=True)
def test_the_engine_reads_ecs_again_if_the_plan_could_not(
    cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade
) -> None:
    deploy(platform, cast.acme, "agent", register(platform, cast.acme, "agent", "v9.9.2"))
    fault = platform.fault("server_error", action="*", account="111111111111")
    rollback = roll_back(cast, done)
    platform.clear_faults(fault["id"])

    engine.run(rollback)

    assert rollback.rollouts.get().outcome == Outcome.CHANGED_SINCE


@pytest.mark.django_db(transaction=True)
def test_a_rollback_that_crashes_is_rolled_back_by_ecs(
    cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade
) -> None:
    platform.fault("crash", cluster=cast.acme.cluster, service=service_name(cast.acme, "agent"))

    rollback = engine.run(roll_back(cast, done))

    assert rollback.rollouts.get().outcome == Outcome.ROLLED_BACK
    assert running(platform, cast.acme, "agent") == done.rollouts.get().task_definition


@pytest.mark.django_db(transaction=True)
def test_a_rollback_of_a_removed_member_is_not_attempted(
    cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade
) -> None:
    rollback = roll_back(cast, done)
    Membership.objects.filter(user=cast.operator).delete()

    engine.run(rollback)

    assert rollback.rollouts.get().outcome == Outcome.NOT_ATTEMPTED


# --- both upgrades' pages -------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_two_pages_link_to_each_other(
    cast: Cast, engine: Engine, platform: LocalAws, done: Upgrade, client_for: SignIn
) -> None:
    client = client_for(cast.operator)
    rollback = roll_back(cast, done)
    under_way = client.get(get_page_url(done).removesuffix("rollback")).content.decode()
    engine.run(rollback)

    original = client.get(get_page_url(done).removesuffix("rollback")).content.decode()
    its_own = client.get(get_page_url(rollback).removesuffix("rollback")).content.decode()

    assert "Recorded. No service has started yet." in under_way
    assert "Rolled back: agent service." in original
    assert f'href="/o/acme/upgrades/{rollback.upgrade_id}/"' in original
    assert f'href="/o/acme/upgrades/{done.upgrade_id}/"' in its_own


@pytest.mark.parametrize(
    ("person", "statuses", "offered"),
    [
        ("operator", [Status.SUCCESS], True),
        ("viewer", [Status.SUCCESS], False),
        ("operator", [Status.IN_PROGRESS], False),
        ("operator", [Status.FAILED], False),
    ],
)
def test_rollback_is_offered_only_if_role_and_state_allow_it(
    cast: Cast, platform: LocalAws, client_for: SignIn, person: str, statuses: list[Status], offered: bool
) -> None:
    upgrade = upgraded(cast, platform, "agent", statuses)

    text = client_for(getattr(cast, person)).get(get_page_url(upgrade).removesuffix("rollback")).content.decode()

    assert (f'href="{get_page_url(upgrade)}"' in text) is offered
