"""What the upgrade form shows before anything starts: choices in the URL, the plan, its impact, reasons to refuse."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client

from portal.models import User
from tests.conftest import Cast, audited_changes, seed_platform
from tests.local_aws import LocalAws
from tests.upgrades.conftest import SIGNED_IN_QUERIES, at_local_aws, make_upgrade
from tests.upgrades.plan import URL, ask, get_row, inputs, radios, words, would_send
from upgrades.inventory.running import FRESH_SECONDS
from upgrades.models import Rollout, Upgrade
from upgrades.states import Status

SignIn = Callable[[User], Client]
HTMX = {"HX-Request": "true"}


# --- choices in the URL --------------------------------------------------------------------------------------------


def test_nothing_chosen_shows_what_runs_and_starts_nothing(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    page = ask(client_for(cast.operator))

    assert "Upgrade services of Acme Robotics" in page
    assert f"{cast.acme.deployment_stack}-cluster" in page
    for label, service, count in (
        ("Agent service", "agent", 4),
        ("Orchestrator", "orchestrator", 3),
        ("Customer portal", "customer-portal", 2),
    ):
        row = get_row(page, label)
        assert "Steady" in row
        assert f"{count} of {count} tasks" in row
        assert f"{cast.acme.deployment_stack}-{service}-service" in row
    assert radios(page, "checked") == []
    assert "Start upgrade" not in page
    assert would_send(page) == {}


@pytest.mark.parametrize(
    ("changed", "target"),
    [
        ("changed=connectors", "agent"),
        ("changed=providers&changed=workflows", "orchestrator"),
        ("changed=portal", "customer-portal"),
        ("changed=together", "all"),
        ("changed=connectors&changed=portal", "all"),
    ],
)
def test_the_changes_suggest_the_smallest_safe_scope(
    cast: Cast, platform: LocalAws, client_for: SignIn, changed: str, target: str
) -> None:
    page = ask(client_for(cast.operator), changed)

    assert radios(page, "checked") == [target]
    assert would_send(page)["service"] == target


def test_a_chosen_target_overrides_the_suggested_one(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    page = ask(client_for(cast.operator), "changed=connectors&service=all")

    assert radios(page, "checked") == ["all"]
    assert "Broader than needed: upgrading only the agent service is enough." in words(page)
    assert 'href="?changed=connectors&amp;service=agent"' in page


def test_a_target_that_leaves_out_a_needed_service_warns(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    page = ask(client_for(cast.operator), "changed=connectors&changed=providers&service=agent&force=1")

    assert "This leaves out the orchestrator, which these changes need." in words(page)
    assert 'href="?changed=connectors&amp;changed=providers&amp;service=all&amp;force=1"' in page


def test_two_services_can_be_upgraded_separately_instead(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    page = ask(client_for(cast.operator), "changed=providers&changed=request-path")

    said = words(page)
    assert "These changes need the agent service and the orchestrator." in said
    assert "rolls the customer portal unnecessarily" in said
    assert "Choose the agent service , then Choose the orchestrator" in said


@pytest.mark.parametrize("path", [URL, "/o/globex/upgrades/new"])
def test_a_shared_link_shows_others_the_same_plan(
    cast: Cast, platform: LocalAws, client_for: SignIn, path: str
) -> None:
    query = "changed=connectors&service=all&version=v9.9.0&force=1"

    pages = [
        client_for(person).get(f"{path}?{query}").content.decode()
        for person in ([cast.operator, cast.admin] if path == URL else [cast.outsider, cast.consultant])
    ]

    for page in pages:
        assert would_send(page) == {
            "service": "all",
            "version": "v9.9.0",
            "force_new_deployment": "on",
            "changed": "connectors",
        }
        boxes = [each for each in inputs(page) if each.get("type") == "checkbox" and "checked" in each]
        assert [(box["name"], box["value"]) for box in boxes] == [("changed", "connectors"), ("force", "1")]


@pytest.mark.parametrize("query", ["changed=nonsense", "service=database", "force=yes", f"version={'x' * 129}"])
def test_an_invalid_choice_is_named_and_the_others_apply(
    cast: Cast, platform: LocalAws, client_for: SignIn, query: str
) -> None:
    page = ask(client_for(cast.operator), f"{query}&service=agent" if "service" not in query else f"{query}&force=1")

    assert "This link contains an invalid choice." in page
    assert ("service" in query) == (would_send(page) == {})


def test_hostile_choices_come_back_escaped(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    hostile = '"><script>alert(1)</script>'

    page = client_for(cast.operator).get(URL, dict.fromkeys(["changed", "service", "version", "force"], hostile))

    assert page.status_code == 200
    assert "<script>alert" not in page.content.decode()


def test_the_fragment_is_only_the_plan_of_the_same_url(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    client = client_for(cast.operator)

    response = client.get(f"{URL}?service=agent&force=1", headers=HTMX)

    text = response.content.decode()
    assert text.count("<form") == 1
    assert "<html" not in text
    assert "HX-Request" in response.headers["Vary"]
    assert would_send(text) == would_send(ask(client, "service=agent&force=1"))


# --- the plan ------------------------------------------------------------------------------------------------------


def test_a_forced_upgrade_replaces_only_the_targets_tasks(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    page = ask(client_for(cast.operator), "service=orchestrator&force=1")

    assert "v9.9.0 , every task replaced" in get_row(page, "Orchestrator")
    assert "not touched" in get_row(page, "Agent service")
    assert "Services 1 of 3" in words(page)
    assert "Tasks replaced 3" in words(page)
    assert 'data-announce="Plan for orchestrator: replaces 3 tasks, takes 2-5 minutes."' in page


def test_all_counts_every_service(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    page = ask(client_for(cast.operator), "service=all&force=1")

    assert "Services 3 of 3, one after the other" in words(page)
    assert "Tasks replaced 9" in words(page)


def test_a_rollout_of_others_is_not_nothing_to_change(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    name = f"{cast.acme.deployment_stack}-agent-service"
    platform.client().update_service(cluster=cast.acme.cluster, service=name, forceNewDeployment=True)

    page = ask(client_for(cast.operator), "service=agent")

    assert "every task replaced" in get_row(page, "Agent service")
    assert "No task would be replaced" not in page


def test_nothing_to_change_is_shown_before_the_start(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    page = ask(client_for(cast.operator), "service=agent")

    assert "v9.9.0 , nothing to change" in get_row(page, "Agent service")
    assert "No task would be replaced" in page
    assert "Tasks replaced 0" in words(page)


def test_a_disabled_service_is_skipped_in_all_else_refused(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    seed_platform(platform, cast.acme, orchestrator=0)
    client = client_for(cast.operator)

    alone, among = ask(client, "service=orchestrator&force=1"), ask(client, "service=all&force=1")

    assert "nothing to roll" in get_row(alone, "Orchestrator")
    assert "This upgrade cannot start." in alone
    assert re.search(r'id="start" disabled', alone)
    assert "skipped: disabled" in get_row(among, "Orchestrator")
    assert "Tasks replaced 6" in words(among)
    assert re.search(r'id="start">', among)


def test_a_missing_service_is_shown(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    cast.acme.deployment_stack = "elsewhere"
    cast.acme.deployment_cluster = f"{cast.globex.deployment_stack}-cluster"
    cast.acme.deployment_region, cast.acme.deployment_role_arn = "us-east-1", cast.globex.deployment_role_arn
    cast.acme.deployment_external_id = cast.globex.deployment_external_id
    cast.acme.save()

    page, whole = ask(client_for(cast.operator), "service=agent"), ask(client_for(cast.operator), "service=all")

    alone = get_row(page, "Agent service")
    assert "missing in the cluster, so it would fail" in alone
    assert "the others" not in alone
    # The engine does the same: GOES_ON in upgrades/engine/finish.py.
    assert "it would fail; the others still roll out" in get_row(whole, "Agent service")


def test_an_unreachable_ecs_leaves_the_plan_unknown(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    platform.fault("server_error", action="*", account="111111111111")

    client = client_for(cast.operator)
    page, other = ask(client, "service=agent&force=1"), ask(client, "service=agent&version=v9.9.1")

    assert "ECS could not be read, so what runs now is not known." in words(page)
    assert "is recorded and runs when ECS responds" in words(page)
    assert "changes not known" in get_row(page, "Agent service")
    assert re.search(r'id="start">', page)
    # The image of another version cannot be found without AWS, so the trigger refuses it.
    assert "An upgrade to v9.9.1 cannot start until AWS responds" in words(other)
    assert "is recorded and runs" not in words(other)


def test_an_old_reading_says_its_age(cast: Cast, platform: LocalAws, client_for: SignIn, time_machine: Any) -> None:
    time_machine.move_to("2026-05-01T12:00:00Z", tick=False)
    client = client_for(cast.operator)
    ask(client)
    time_machine.shift(FRESH_SECONDS + 60)
    platform.fault("access_denied", action="DescribeServices", account="111111111111")

    page = ask(client, "service=agent&force=1")

    assert "ECS could not be read. This is the state of 1 min ago" in words(page)
    assert "ecs:DescribeServices: AccessDenied" in page
    assert "4 of 4 tasks" in get_row(page, "Agent service")


# --- the impact ----------------------------------------------------------------------------------------------------


def test_the_expected_time_comes_from_the_organizations_own_past(
    cast: Cast, platform: LocalAws, client_for: SignIn
) -> None:
    client = client_for(cast.operator)
    before = words(ask(client, "service=all&force=1"))
    make_upgrade(cast.globex, by=cast.outsider, target="all")
    foreign = words(ask(client, "service=all&force=1"))
    make_upgrade(cast.acme, by=cast.operator, target="all")

    own = words(ask(client, "service=all&force=1"))

    assert "Expected 2-5 minutes" in before
    assert "Expected 2-5 minutes" in foreign
    assert "Expected about 12 minutes, based on past rollouts" in own


def test_only_the_last_result_of_this_scope_is_shown(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    client = client_for(cast.operator)
    failed = make_upgrade(cast.acme, by=cast.admin, statuses=[Status.FAILED], created_at=Now() - timedelta(hours=1))
    make_upgrade(cast.acme, by=cast.admin, statuses=[Status.SUCCESS], created_at=Now() - timedelta(days=1))
    make_upgrade(cast.globex, by=cast.outsider, target="orchestrator")

    agent, orchestrator = ask(client, "service=agent"), ask(client, "service=orchestrator")

    assert "Last upgrade of this scope Failed" in words(agent)
    assert f"/o/acme/upgrades/{failed.upgrade_id}/" in agent
    assert "Last upgrade of this scope none yet" in words(orchestrator)


def test_open_upgrades_block_only_their_own_services(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    blocker = make_upgrade(cast.acme, by=cast.admin, statuses=[Status.IN_PROGRESS])
    client = client_for(cast.operator)

    free, used = ask(client, "service=orchestrator&force=1"), ask(client, "service=all&force=1")

    assert radios(free, "disabled") == ["agent", "all"]
    assert free.count("which has not ended") == 2
    assert "Open upgrades agent service" in words(free)
    assert re.search(r'id="start">', free)
    assert f"Agent service is part of {blocker.upgrade_id}, which has not ended. Wait for it or stop it." in used
    assert f'href="/o/acme/upgrades/{blocker.upgrade_id}/"' in used
    assert re.search(r'id="start" disabled', used)


# --- who may not ---------------------------------------------------------------------------------------------------


def test_a_viewer_sees_every_plan_and_why_it_cannot_be_started(
    cast: Cast, platform: LocalAws, client_for: SignIn
) -> None:
    page = ask(client_for(cast.viewer), "changed=connectors&force=1")

    assert "every task replaced" in get_row(page, "Agent service")
    assert "not start an upgrade. Your role is viewer: this needs operator." in words(page)
    start = page.partition('id="start-title"')[2]
    assert "disabled" in re.findall(r"<fieldset[^>]*>", start)[0]
    assert "disabled" not in re.findall(r"<fieldset[^>]*>", page)[0]


@pytest.mark.parametrize("query", ["", "service=agent&force=1"])
def test_an_organization_without_cluster_sees_what_is_missing(cast: Cast, client_for: SignIn, query: str) -> None:
    response = client_for(cast.newcomer).get(f"/o/initech/upgrades/new?{query}")

    assert response.status_code == 200
    assert "Initech has no ECS cluster yet." in response.content.decode()
    assert "Start upgrade" not in response.content.decode()


@pytest.mark.parametrize("headers", [{}, HTMX])
@pytest.mark.parametrize("person", ["outsider", "stranger", "newcomer", "staff"])
def test_outsider_gets_404(
    cast: Cast, platform: LocalAws, client_for: SignIn, person: str, headers: dict[str, str]
) -> None:
    response = client_for(getattr(cast, person)).get(f"{URL}?service=agent", headers=headers)

    assert response.status_code == 404
    assert "Acme" not in response.content.decode()


# --- what it costs -------------------------------------------------------------------------------------------------


def test_viewing_plans_writes_nothing(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    client = client_for(cast.operator)

    for query in ("", "service=all&force=1", "changed=portal"):
        ask(client, query)

    assert (Upgrade.objects.count(), Rollout.objects.count(), audited_changes().count()) == (0, 0, 0)
    assert platform.ledger(cluster=cast.acme.cluster) == []


@pytest.mark.parametrize("rows", [1, 5])
def test_its_queries_do_not_grow_with_the_past(
    cast: Cast, platform: LocalAws, client_for: SignIn, django_assert_num_queries: Any, rows: int
) -> None:
    for _ in range(rows):
        make_upgrade(cast.acme, by=cast.operator, target="all")
    for service in ("agent", "orchestrator")[: 1 + rows // 5]:
        make_upgrade(cast.acme, by=cast.operator, target=service, statuses=[Status.IN_PROGRESS])
    client = client_for(cast.viewer)
    ask(client)

    # The frame, the record of the services, past versions, open upgrades, the estimate, the last of this scope (with its
    # rollouts).
    with django_assert_num_queries(SIGNED_IN_QUERIES + 7):
        ask(client, "service=all&force=1")


# --- pre-flight ----------------------------------------------------------------------------------------------------


def panel(client: Client, **query: str) -> str:
    response = client.get("/o/acme/upgrades/preflight", query, headers=HTMX)
    assert response.status_code == 200
    return str(response.content.decode())


def test_the_page_loads_pre_flight_after_itself(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    page = ask(client_for(cast.operator), "service=agent&force=1")

    assert 'hx-get="/o/acme/upgrades/preflight?service=agent" hx-trigger="load, refresh"' in page
    assert "Running checks against ECS and the platform." in page
    assert 'href="?service=agent&amp;force=1&amp;checks=1"' in page


def test_without_javascript_the_checks_are_in_the_page(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    page = ask(client_for(cast.operator), "service=agent&force=1&checks=1")

    assert "Services run steadily Steady: Agent service (4 of 4)." in words(page)
    assert 'hx-trigger="refresh"' in page


def test_the_panel_shows_each_check_with_its_details(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    at_local_aws(platform, cast.acme)

    said = words(panel(client_for(cast.viewer), service="orchestrator"))

    assert "Steady: Orchestrator (3 of 3)." in said
    assert "No check failed. 1 of 10 checks could not be verified" in said
    assert "Checked just now" in said
    assert "Reason to start despite failed checks" not in said


def test_an_override_reason_is_requested_only_after_a_failure(
    cast: Cast, platform: LocalAws, client_for: SignIn
) -> None:
    at_local_aws(platform, cast.acme)
    platform.set_platform(cast.acme.deployment_stack, "component/llm_router", "unhealthy")

    found = panel(client_for(cast.operator), service="agent")

    assert "1 of 10 checks failed" in words(found)
    assert re.search(r'<textarea name="override_reason"[^>]* required', found)


@pytest.mark.parametrize("query", ["", "service=database", "service=agent"])
def test_the_panel_without_htmx_redirects_to_the_form(
    cast: Cast, platform: LocalAws, client_for: SignIn, query: str
) -> None:
    response = client_for(cast.viewer).get(f"/o/acme/upgrades/preflight?{query}")

    chosen = "service=agent&" if query == "service=agent" else ""
    assert (response.status_code, response.headers["Location"]) == (302, f"{URL}?{chosen}checks=1")


def test_the_panel_of_an_organization_is_for_its_members(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    for person in (cast.outsider, cast.stranger, cast.newcomer, cast.staff):
        response = client_for(person).get("/o/acme/upgrades/preflight?service=agent", headers=HTMX)

        assert response.status_code == 404
        assert "acme" not in response.content.decode()


def test_the_plan_names_each_container_that_moves(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    images = {"agent": "axonflow-agent:v9.9.0", "worker": "axonflow-agent:v9.9.0", "migrate": "axonflow-agent:v9.8.0"}
    containers = [
        {"name": name, "image": f"111111111111.dkr.ecr.eu-central-1.amazonaws.com/{image}", "memory": 64}
        for name, image in {**images, "proxy": "axonflow-orchestrator:v9.9.0"}.items()
    ]
    family = f"{cast.acme.deployment_stack}-agent"
    platform.client().register_task_definition(family=family, containerDefinitions=containers)
    platform.client().update_service(cluster=cast.acme.cluster, service=f"{family}-service", taskDefinition=family)
    platform.advance(300)

    response = client_for(cast.operator).get("/o/acme/upgrades/new", {"service": "agent", "version": "v9.9.1"})

    text = " ".join(re.sub(r"<[^>]*>", "", response.content.decode()).split())
    assert (
        "Moves to the new image too: container worker (now the same image), "
        "container migrate (now axonflow-agent:v9.8.0)." in text
    )


def test_the_plan_says_what_a_bake_and_a_pause_mean(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    hook = {"targetType": "PAUSE", "lifecycleStages": ["POST_TEST_TRAFFIC_SHIFT"]}
    platform.client().update_service(
        cluster=cast.acme.cluster,
        service=f"{cast.acme.deployment_stack}-agent-service",
        deploymentConfiguration={"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 15, "lifecycleHooks": [hook]},
    )

    page = client_for(cast.operator).get(f"{URL}?service=agent&force=1").content.decode()

    row = get_row(page, "Agent service")
    assert "Blue/green: bake of 15 min, waits for a decision at POST_TEST_TRAFFIC_SHIFT" in row
    assert "2-5 minutes and 15 min of bake, no past rollouts yet" in words(page)
    assert "Rolling:" not in get_row(page, "Orchestrator")
