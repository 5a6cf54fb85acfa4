"""What the upgrade form shows about versions: the choices, and what would change."""

import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from portal.models import User
from tests.conftest import Cast
from tests.local_aws import LocalAws
from tests.upgrades.plan import URL, all_hidden, ask, get_row, words, would_send
from tests.upgrades.versions import put_image
from upgrades.inventory.catalogue import FRESH_SECONDS
from upgrades.models import Upgrade

SignIn = Callable[[User], Client]
HTMX = {"HX-Request": "true"}


def options(page: str) -> dict[str, str]:
    """Return the label of each version offered, by value, in order."""
    select = page.partition('<select name="version"')[2].partition("</select>")[0]
    return {value: html.unescape(label) for value, label in re.findall(r'<option value="([^"]*)"[^>]*>([^<]*)', select)}


@pytest.mark.usefixtures("registry")
def test_versions_are_offered_newest_first_with_details(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    found = options(ask(client_for(cast.operator)))

    assert list(found) == ["", "v9.9.1", "v9.9.0", "v9.8.0"]
    assert found[""] == "latest (v9.9.1)"
    assert found["v9.9.1"] == "v9.9.1, pushed 3 d ago, all three"
    assert found["v9.9.0"].endswith("all three, runs: agent service and orchestrator and customer portal")


@pytest.mark.usefixtures("registry")
def test_version_labels_name_the_services_that_differ(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    for tag in ("v9.9.1", "latest"):
        platform.client("ecr").batch_delete_image(repositoryName="axonflow-orchestrator", imageIds=[{"imageTag": tag}])

    found = options(ask(client_for(cast.operator)))

    assert found["v9.9.1"] == "v9.9.1, pushed 3 d ago, only agent service and customer portal"
    assert found[""] == "latest (agent service v9.9.1, orchestrator v9.9.0, customer portal v9.9.1)"


def test_a_limited_registry_offers_only_latest_and_says_why(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    page = ask(client_for(cast.operator), "service=agent")

    assert options(page) == {"": "latest (the image that each task definition names)"}
    assert "Version selection is limited" in page
    assert "Amazon ECR has no repository axonflow-agent" in page


@pytest.mark.usefixtures("registry")
def test_an_old_list_is_dated_in_the_persons_zone(
    cast: Cast, platform: LocalAws, client_for: SignIn, time_machine: Any
) -> None:
    client = client_for(cast.operator)
    client.post("/account/times", {"zone": "America/New_York"})
    time_machine.move_to("2026-05-01T12:00:00Z", tick=False)
    ask(client)
    platform.fault("throttle", action="DescribeImages")
    time_machine.shift(FRESH_SECONDS)

    assert "The list is as of 2026-05-01 08:00:00 EDT." in words(ask(client))


@pytest.mark.usefixtures("registry")
def test_the_fragment_has_no_version_list(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    assert "<select" not in client_for(cast.operator).get(f"{URL}?service=agent", headers=HTMX).content.decode()


def test_another_version_shows_exactly_what_would_change(
    cast: Cast, registry: dict[str, str], platform: LocalAws, client_for: SignIn
) -> None:
    page = ask(client_for(cast.operator), "service=agent&version=v9.8.0")

    row = get_row(page, "Agent service")
    assert "v9.9.0 → v9.8.0 , every task replaced" in row
    assert "Only the image changes" in row
    assert f"{registry['agent:v9.9.0'][:19]} → {registry['agent:v9.8.0'][:19]}" in row
    assert re.search(r"Image size [\d.]+\s.B → [\d.]+\s.B", row)
    assert "Environment unchanged" in row
    assert "a new revision" in row
    assert would_send(page)["version"] == "v9.8.0"
    assert "Tasks replaced 4" in words(page)
    assert "Start upgrade of agent service to v9.8.0" in words(page)
    assert "Downgrade: agent service from v9.9.0 to v9.8.0. The database is not rolled back" in words(page)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("registry")
def test_an_image_other_than_the_one_shown_is_not_started(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    client = client_for(cast.operator)
    sent = all_hidden(ask(client, "service=agent&version=v9.9.1"))
    moved = put_image(platform, ["rebuilt", "v9.9.1"])
    cache.clear()

    refused = client.post(URL, sent)

    assert refused.status_code == 409
    assert f"another image than the plan showed (agent service: {moved[:19]})" in words(refused.content.decode())
    assert Upgrade.objects.count() == 0
    assert client.post(URL, all_hidden(refused.content.decode())).status_code == 302


@pytest.mark.usefixtures("registry")
def test_latest_shows_its_version_and_is_sent_as_latest(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    page = ask(client_for(cast.operator), "service=all")

    for label in ("Agent service", "Orchestrator", "Customer portal"):
        assert "v9.9.0 → v9.9.1" in get_row(page, label)
    assert "Start upgrade of all three services to v9.9.1" in words(page)
    assert "Downgrade" not in page
    assert would_send(page)["version"] == "latest"


@pytest.mark.usefixtures("registry")
def test_a_version_that_runs_already_changes_nothing(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    page = ask(client_for(cast.operator), "service=agent&version=v9.9.0")

    assert "v9.9.0 , nothing to change" in get_row(page, "Agent service")
    assert "Only the image changes" not in page


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_a_version_a_service_lacks_stays_chosen_but_is_refused(
    cast: Cast, platform: LocalAws, client_for: SignIn, headers: dict[str, str]
) -> None:
    platform.client("ecr").batch_delete_image(repositoryName="axonflow-orchestrator", imageIds=[{"imageTag": "v9.8.0"}])

    page = ask(client_for(cast.operator), "service=all&version=v9.8.0", **headers)

    assert "This upgrade cannot start. Version v9.8.0 cannot be rolled out (orchestrator: the repository" in words(page)
    assert re.search(r'id="start" disabled', page)
    assert "cannot run v9.8.0" in get_row(page, "Orchestrator")
    assert "v9.9.0 → v9.8.0" in get_row(page, "Agent service")
    if not headers:
        assert page.index("Version v9.8.0 cannot be rolled out") < page.index('id="choices"')
        assert re.search(r'<option value="v9.8.0" selected', page)


@pytest.mark.usefixtures("registry")
def test_a_version_that_is_not_listed_is_shown_as_chosen(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    page = ask(client_for(cast.operator), "service=agent&version=v1")

    assert options(page)["v1"] == "v1 (not listed)"
    assert re.search(r'<option value="v1" selected', page)


@pytest.mark.usefixtures("registry")
def test_an_unreachable_registry_leaves_the_change_unknown(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    platform.fault("throttle", action="DescribeImages")
    client = client_for(cast.operator)

    latest, named = ask(client, "service=agent"), ask(client, "service=agent&version=v9.9.1")

    assert "changes not known" in get_row(latest, "Agent service")
    assert re.search(r'id="start">', latest)
    assert "This upgrade cannot start. The portal could not check whether version v9.9.1 exists" in words(named)


@pytest.mark.usefixtures("registry")
def test_an_unreadable_task_definition_leaves_the_rest_unknown(
    cast: Cast, platform: LocalAws, client_for: SignIn
) -> None:
    client = client_for(cast.operator)
    ask(client)
    platform.fault("access_denied", action="DescribeTaskDefinition", account="111111111111")

    row = get_row(ask(client, "service=agent"), "Agent service")

    assert "Other differences could not be read: ecs:DescribeTaskDefinition: AccessDenied" in row


@pytest.mark.usefixtures("registry")
def test_no_value_of_the_environment_is_shown(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    ecs = platform.client()
    name = f"{cast.acme.deployment_stack}-agent"
    now = ecs.describe_task_definition(taskDefinition=name)["taskDefinition"]
    secret = {"memory": 256, "environment": [{"name": "TOKEN", "value": "canary"}]}
    containers = [each | secret for each in now["containerDefinitions"]]
    revision = ecs.register_task_definition(family=name, containerDefinitions=containers)["taskDefinition"]
    ecs.update_service(
        cluster=cast.acme.cluster, service=f"{name}-service", taskDefinition=revision["taskDefinitionArn"]
    )
    platform.advance(600)

    page = ask(client_for(cast.operator), "service=agent")

    assert "Only the image changes" in page
    assert "canary" not in page
