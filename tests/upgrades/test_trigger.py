"""Triggering an upgrade through page and API. Behaviour of only one of them is in test_trigger_{api,page}.py."""

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from portal.errors import PortalError
from portal.idempotency import IdempotencyKey
from portal.models import Membership, Organization, User
from tests.conftest import Cast, audited_changes, seed_platform
from tests.local_aws import LocalAws
from tests.upgrades.conftest import Door, make_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Rollout, Upgrade
from upgrades.states import Phase, Status

SignIn = Callable[[User], Client]


def written() -> tuple[int, ...]:
    """Count the rows of every table that a trigger writes."""
    counts = (model.objects.count() for model in (Upgrade, Rollout, IdempotencyKey))
    return (*counts, audited_changes().count())


def test_an_operator_triggers_an_upgrade(cast: Cast, platform: LocalAws, client_for: SignIn, door: Door) -> None:
    response = door.trigger(client_for(cast.operator), cast.acme, force_new_deployment=True, reason="OPS-1")

    assert response.status_code == door.accepted
    upgrade = door.find_upgrade(response)
    assert (upgrade.organization, upgrade.target, upgrade.version) == (cast.acme, "agent", "latest")
    assert (upgrade.force_new_deployment, upgrade.reason) == (True, "OPS-1")
    assert (upgrade.initiated_by, upgrade.initiated_by_email) == (cast.operator, cast.operator.email)
    assert upgrade.status == Status.PENDING
    rollout = upgrade.rollouts.get()
    assert (rollout.service, rollout.phase) == ("agent", Phase.DUE)
    assert rollout.service_name == f"{cast.acme.deployment_stack}-agent-service"
    assert rollout.next_check_at is not None
    assert rollout.deadline_at is not None


def test_an_admin_may_trigger(cast: Cast, platform: LocalAws, client_for: SignIn, door: Door) -> None:
    assert door.trigger(client_for(cast.admin), cast.acme).status_code == door.accepted


def test_all_means_the_three_services_in_order(cast: Cast, platform: LocalAws, client_for: SignIn, door: Door) -> None:
    upgrade = door.find_upgrade(door.trigger(client_for(cast.operator), cast.acme, service="all"))

    assert list(upgrade.rollouts.values_list("service", "phase")) == [
        ("agent", Phase.DUE),
        ("orchestrator", Phase.WAITING),
        ("customer-portal", Phase.WAITING),
    ]


def test_the_trigger_itself_writes_nothing_to_aws(
    cast: Cast, platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    door.trigger(client_for(cast.operator), cast.acme)

    assert platform.ledger(cluster=cast.acme.cluster) == []


def test_a_consultant_acts_on_the_named_organization(
    cast: Cast, platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    client = client_for(cast.consultant)

    first = door.find_upgrade(door.trigger(client, cast.acme))
    second = door.find_upgrade(door.trigger(client, cast.globex))

    assert (first.organization, second.organization) == (cast.acme, cast.globex)


def test_disjoint_services_roll_side_by_side(cast: Cast, platform: LocalAws, client_for: SignIn, door: Door) -> None:
    client = client_for(cast.operator)
    make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])

    assert door.trigger(client, cast.acme, service="orchestrator").status_code == door.accepted


def test_another_organizations_upgrade_blocks_nothing(
    cast: Cast, platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    make_upgrade(cast.globex, by=cast.outsider, statuses=[Status.IN_PROGRESS])

    assert door.trigger(client_for(cast.operator), cast.acme).status_code == door.accepted


def test_aws_being_down_does_not_refuse(cast: Cast, platform: LocalAws, client_for: SignIn, door: Door) -> None:
    platform.fault("server_error", action="*", account="111111111111")

    response = door.trigger(client_for(cast.operator), cast.acme)

    assert response.status_code == door.accepted


def test_the_broker_being_down_does_not_refuse(
    cast: Cast,
    platform: LocalAws,
    client_for: SignIn,
    door: Door,
    broker_down: None,
    caplog: pytest.LogCaptureFixture,
    django_capture_on_commit_callbacks: Any,
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        response = door.trigger(client_for(cast.operator), cast.acme)

    assert response.status_code == door.accepted
    assert "broker does not answer" in caplog.text
    assert door.find_upgrade(response).rollouts.get().next_check_at is not None


def test_the_same_key_and_request_give_the_same_upgrade(
    cast: Cast, platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    client = client_for(cast.operator)
    first = door.find_upgrade(door.trigger(client, cast.acme, key="once"))

    again = door.trigger(client, cast.acme, key="once")

    assert again.status_code == door.accepted
    assert door.find_upgrade(again) == first
    assert Upgrade.objects.count() == 1
    assert audited_changes().count() == 1


def test_the_same_key_of_two_people_gives_two_upgrades(
    cast: Cast, platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    first = door.find_upgrade(door.trigger(client_for(cast.operator), cast.acme, key="once"))

    # Exactly the request of the other person, which is refused and not answered as if it were that request.
    same = door.trigger(client_for(cast.admin), cast.acme, key="once")
    other = door.trigger(client_for(cast.admin), cast.acme, service="orchestrator", key="once")

    assert same.status_code == 409
    assert other.status_code == door.accepted
    assert door.find_upgrade(other) != first


def test_the_same_key_in_two_organizations_gives_two_upgrades(
    cast: Cast, platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    client = client_for(cast.consultant)

    first = door.find_upgrade(door.trigger(client, cast.acme, key="once"))
    second = door.find_upgrade(door.trigger(client, cast.globex, key="once"))

    assert (first.organization, second.organization) == (cast.acme, cast.globex)


# --- who may not ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("person", ["outsider", "stranger", "newcomer", "staff"])
def test_outsider_gets_404(cast: Cast, platform: LocalAws, client_for: SignIn, door: Door, person: str) -> None:
    before = written()

    response = door.trigger(client_for(getattr(cast, person)), cast.acme)

    assert response.status_code == 404
    assert written() == before


def test_viewer_gets_403_with_the_role_that_is_needed(
    cast: Cast, platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    before = written()

    response = door.trigger(client_for(cast.viewer), cast.acme)

    assert response.status_code == 403
    assert "Your role in Acme Robotics is viewer; this needs operator." in door.get_text(response)
    assert written() == before


def test_a_removed_member_gets_404(cast: Cast, platform: LocalAws, client_for: SignIn, door: Door) -> None:
    client = client_for(cast.operator)
    Membership.objects.filter(user=cast.operator).delete()
    before = written()

    assert door.trigger(client, cast.acme).status_code == 404
    assert written() == before


def test_a_demoted_member_gets_403_immediately(cast: Cast, platform: LocalAws, client_for: SignIn, door: Door) -> None:
    client = client_for(cast.operator)
    assert door.trigger(client, cast.acme).status_code == door.accepted
    Membership.objects.filter(user=cast.operator).update(role="viewer")
    before = written()

    assert door.trigger(client, cast.acme, service="orchestrator").status_code == 403
    assert written() == before


def test_a_suspended_organization_is_not_there(cast: Cast, platform: LocalAws, client_for: SignIn, door: Door) -> None:
    Organization.objects.filter(pk=cast.acme.pk).update(is_active=False)
    before = written()

    assert door.trigger(client_for(cast.operator), cast.acme).status_code == 404
    assert written() == before


@pytest.mark.parametrize(("person", "status"), [("outsider", 404), ("stranger", 404), ("viewer", 403)])
def test_the_command_itself_checks_the_role(cast: Cast, person: str, status: int) -> None:
    before = written()

    with pytest.raises(PortalError) as refused:
        trigger_upgrade(cast.acme, actor=getattr(cast, person), service="all")

    assert refused.value.status == status
    assert written() == before


# --- wrong state ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("running", "asked"),
    [("agent", "agent"), ("agent", "all"), ("all", "agent"), ("all", "customer-portal"), ("all", "all")],
)
def test_an_overlap_is_a_conflict_naming_the_blocker(
    cast: Cast, platform: LocalAws, client_for: SignIn, door: Door, running: str, asked: str
) -> None:
    pending = [Status.IN_PROGRESS] if running != "all" else [Status.IN_PROGRESS, Status.PENDING, Status.PENDING]
    blocker = make_upgrade(cast.acme, by=cast.admin, target=running, statuses=pending)
    before = written()

    response = door.trigger(client_for(cast.operator), cast.acme, service=asked)

    assert response.status_code == 409
    assert f"{blocker.upgrade_id}, which has not ended" in door.get_text(response)
    assert written() == before


def test_an_ended_service_of_a_running_all_may_be_rolled_again(
    cast: Cast, platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    make_upgrade(cast.acme, by=cast.admin, target="all", statuses=[Status.SUCCESS, Status.IN_PROGRESS, Status.PENDING])

    assert door.trigger(client_for(cast.operator), cast.acme, service="agent").status_code == door.accepted


def test_an_organization_without_cluster_and_stack_is_refused(
    cast: Cast, local_aws: LocalAws, client_for: SignIn, door: Door
) -> None:
    before = written()

    response = door.trigger(client_for(cast.newcomer), cast.initech)

    assert response.status_code == 400
    assert "Initech has neither an ECS cluster nor a stack." in door.get_text(response)
    assert written() == before


def test_a_cluster_without_stack_is_refused(cast: Cast, local_aws: LocalAws, client_for: SignIn, door: Door) -> None:
    Organization.objects.filter(pk=cast.initech.pk).update(deployment_cluster="somewhere")
    before = written()

    response = door.trigger(client_for(cast.newcomer), cast.initech)

    assert response.status_code == 400
    assert "Initech has no stack" in door.get_text(response)
    assert written() == before


def test_a_disabled_service_on_its_own_is_refused(
    cast: Cast, local_aws: LocalAws, client_for: SignIn, door: Door
) -> None:
    seed_platform(local_aws, cast.acme, agent=0)
    before = written()

    response = door.trigger(client_for(cast.operator), cast.acme)

    assert response.status_code == 400
    assert "desired count is 0" in door.get_text(response)
    assert written() == before


def test_all_is_accepted_with_a_disabled_service(
    cast: Cast, local_aws: LocalAws, client_for: SignIn, door: Door
) -> None:
    seed_platform(local_aws, cast.acme, agent=0)

    assert door.trigger(client_for(cast.operator), cast.acme, service="all").status_code == door.accepted


def test_the_same_key_with_another_request_is_refused(
    cast: Cast, platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    client = client_for(cast.operator)
    first = door.find_upgrade(door.trigger(client, cast.acme, key="once"))
    before = written()

    response = door.trigger(client, cast.acme, service="orchestrator", key="once")

    assert response.status_code == 422
    assert first.upgrade_id in door.get_text(response)
    assert written() == before


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("service", "database"),
        ("service", ""),
        ("reason", "x" * 2001),
        ("reason", "a\x00b"),
        ("version", "a\x00b"),
        ("version", "x" * 129),
        ("version", ""),
    ],
)
def test_bad_input_is_refused_and_nothing_written(
    cast: Cast, platform: LocalAws, client_for: SignIn, door: Door, field: str, value: str
) -> None:
    before = written()

    response = door.trigger(client_for(cast.operator), cast.acme, **{field: value})

    assert response.status_code == door.bad_input
    assert written() == before


def test_a_version_of_a_limited_registry_is_refused(
    cast: Cast, platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    before = written()

    response = door.trigger(client_for(cast.operator), cast.acme, version="v9.9.1")

    assert response.status_code == 400
    assert "Version v9.9.1 cannot be rolled out (agent service: Amazon ECR has no repository" in door.get_text(response)
    assert written() == before


def test_a_version_that_one_service_lacks_is_refused(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    platform.client("ecr").batch_delete_image(repositoryName="axonflow-orchestrator", imageIds=[{"imageTag": "v9.8.0"}])
    before = written()

    response = door.trigger(client_for(cast.operator), cast.acme, service="all", version="v9.8.0")

    assert response.status_code == 400
    assert "orchestrator: the repository axonflow-orchestrator has no image v9.8.0" in door.get_text(response)
    assert written() == before


def test_a_version_is_refused_if_the_registry_is_down(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    platform.fault("throttle", action="DescribeImages")
    before = written()

    response = door.trigger(client_for(cast.operator), cast.acme, version="v9.9.1")

    assert response.status_code == 502
    assert "ecr:DescribeImages: ThrottlingException" in door.get_text(response)
    assert written() == before


def test_a_version_is_recorded_with_its_digest(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    response = door.trigger(client_for(cast.operator), cast.acme, version="v9.8.0")

    assert response.status_code == door.accepted
    upgrade = door.find_upgrade(response)
    rollout = upgrade.rollouts.get()
    assert (upgrade.version, rollout.wanted_version) == ("v9.8.0", "v9.8.0")
    assert str(rollout.wanted_image).endswith(f"/axonflow-agent@{registry['agent:v9.8.0']}")


def test_a_reason_of_2000_characters_is_stored_unchanged(
    cast: Cast, platform: LocalAws, client_for: SignIn, door: Door
) -> None:
    reason = "<b>é\u202e'; DROP TABLE deployment_upgrades;--".ljust(2000, "x")

    upgrade = door.find_upgrade(door.trigger(client_for(cast.operator), cast.acme, reason=reason))

    assert upgrade.reason == reason


# --- the audit event -----------------------------------------------------------------------------------------------


def test_the_trigger_is_audited(cast: Cast, platform: LocalAws, client_for: SignIn, door: Door) -> None:
    response = door.trigger(client_for(cast.operator), cast.acme, reason="OPS-1")

    event = audited_changes().get()
    assert (event.kind, event.organization, event.actor) == ("upgrade.triggered", cast.acme, cast.operator)
    assert (event.actor_email, event.subject) == (cast.operator.email, door.find_upgrade(response).upgrade_id)
    assert event.data == {"service": "agent", "version": "latest", "force_new_deployment": False, "reason": "OPS-1"}
    assert event.request_id == response.headers["X-Request-ID"]
