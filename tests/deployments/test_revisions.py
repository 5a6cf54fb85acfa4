"""Revisions of an agent: what a deploy records, how two differ, and the return to an earlier one."""

from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.test import Client

from deployments.commands import create_deployment, kill_deployment, restart_deployment, update_agent
from deployments.models import Agent, Deployment, Revision
from portal.aws import ecs
from portal.errors import PortalError
from portal.models import User
from tests.conftest import Cast, audited_changes
from tests.deployments.conftest import (
    AGENTS,
    DEPLOYMENTS,
    Runtime,
    assert_refused,
    history,
    make_agent,
    make_deployment,
    read_html,
    send_json,
)
from tests.local_aws import LocalAws

pytestmark = pytest.mark.django_db

SignIn = Callable[[User], Client]
REPOSITORY = "111111111111.dkr.ecr.eu-central-1.amazonaws.com/billing-agent"
SECRET = "arn:aws:secretsmanager:eu-central-1:111111111111:secret:acme/model-Ab12Cd"


@pytest.fixture
def client(cast: Cast, client_for: SignIn) -> Client:
    return client_for(cast.operator)


@pytest.fixture
def two(cast: Cast, agent: Agent, local_aws: LocalAws) -> Agent:
    """Return an agent with two revisions: the first one ready, then edited and deployed again, which failed."""
    make_deployment(cast, agent)
    changed = {"LOG_LEVEL": "debug", "MODEL_KEY": SECRET}
    update_agent(agent, actor=cast.operator, image=f"{REPOSITORY}:v2", memory=1024, environment=changed)
    make_deployment(cast, agent, "failed", replicas=1)
    return agent


def revisions_of(agent: Agent) -> str:
    return f"{AGENTS}/{agent.pk}/revisions"


def restore(client: Client, agent: Agent, number: int, body: Any = None, **headers: str) -> Any:
    return send_json(client, "post", f"{revisions_of(agent)}/{number}/restore", body or {}, **headers)


def page_of(agent: Agent, rest: str = "") -> str:
    return f"/o/acme/agents/{agent.pk}/{rest}"


# --- what a deploy records ----------------------------------------------------------------------------------------------


def test_each_deploy_is_a_revision(client: Client, two: Agent) -> None:
    send_json(client, "post", DEPLOYMENTS, {"agent_id": str(two.pk), "version": "v3"})

    listed = client.get(revisions_of(two)).json()
    compared = client.get(f"{revisions_of(two)}/2").json()
    with_first = client.get(f"{revisions_of(two)}/3?compare=1").json()

    shown = ("number", "version", "live_deployments", "target_deployments")
    assert [tuple(each[name] for name in shown) for each in listed["items"]] == [
        *((3, "v3", 0, 1), (2, "v2", 0, 0), (1, "v1.4.0", 1, 1))
    ]
    assert listed["items"][1].items() <= compared.items()
    assert compared["compared_with"] == 1
    assert [(each["field"], each["name"], each["before"], each["after"]) for each in compared["differences"]] == [
        ("image", None, listed["items"][2]["image"], f"{REPOSITORY}:v2"),
        ("memory", None, "512", "1024"),
        ("environment", "LOG_LEVEL", None, "debug"),
        ("environment", "MODEL_KEY", None, SECRET),
    ]
    assert (with_first["compared_with"], with_first["version"]) == (1, "v3")


def test_a_restart_makes_one_revision(cast: Cast, two: Agent) -> None:
    """Also of a row that ECS has changed since it was read. A second restart of it is refused and makes none."""
    read, again = [Deployment.objects.get(status="failed") for _ in range(2)]
    Deployment.objects.filter(pk=read.pk).update(observed_generation=F("observed_generation") - 1)

    restart_deployment(read, actor=cast.operator)
    with pytest.raises(PortalError, match="Can only restart"):
        restart_deployment(again, actor=cast.operator)

    assert [each.number for each in Revision.objects.filter(agent=two)] == [3, 2, 1]
    assert (read.generation, read.target_revision.number) == (2, 3)


def test_an_unknown_revision_is_not_found(client: Client, two: Agent) -> None:
    for path in ("9", "1?compare=9", f"{10**30}"):
        assert_refused(client.get(f"{revisions_of(two)}/{path}"), 404, "not_found")
    assert client.get(page_of(two, "revisions/1/?compare=9")).status_code == 404


@pytest.mark.parametrize("change", ["SET memory = 1024", "SET digest = 'sha256:2'", "DELETE"])
def test_a_revision_is_never_changed(two: Agent, change: str) -> None:
    """Only the digest is written later, once: the registry tells it when the deploy is carried out."""
    Revision.objects.filter(agent=two, number=1).update(digest="sha256:1")
    statement = "DELETE FROM" if change == "DELETE" else "UPDATE"

    with pytest.raises(DatabaseError, match="never changed"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"{statement} deployments_revision {'' if change == 'DELETE' else change} WHERE number = 1")


# --- the return to an earlier one -----------------------------------------------------------------------------------------


def test_a_return_moves_what_is_live(cast: Cast, client: Client, two: Agent) -> None:
    """A stopped one stays stopped, and one that runs the same settings is left alone."""
    edited, _ = make_deployment(cast, two), make_deployment(cast, two, "stopped")
    Deployment.objects.filter(status="failed").update(created_at=Now() + timedelta(hours=1))

    response = restore(client, two, 1, {"newest": 4})

    record = response.json()
    two.refresh_from_db()
    assert (response.status_code, response["Location"]) == (201, f"{revisions_of(two)}/5")
    assert (record["number"], record["restored_from"]) == (5, 1)
    assert (record["live_deployments"], record["target_deployments"]) == (0, 2)
    assert (two.image.rpartition(":")[2], two.memory, two.environment) == ("v1.4.0", 512, {})
    states = Deployment.objects.order_by("status", "created_at").values_list(
        "status", "target_revision__number", "generation"
    )
    assert list(states) == [("deploying", 5, 2), ("ready", 1, 1), ("ready", 5, 2), ("stopped", 4, 1)]
    assert history(edited) == [("create", "deploying"), ("restart", "ready")]
    kinds = list(audited_changes().order_by("pk").values_list("kind", flat=True))[-3:]
    assert sorted(kinds) == ["agent.changed", "deployment.restarted", "deployment.restarted"]


def test_a_return_without_a_live_deployment_creates_one(cast: Cast, client: Client, agent: Agent) -> None:
    kill_deployment(create_deployment(agent, actor=cast.operator), actor=cast.operator)

    first = restore(client, agent, 1, Idempotency_Key="back-1")
    again = restore(client, agent, 1, Idempotency_Key="back-1")

    assert first.json()["number"] == again.json()["number"] == 2
    assert [each.target_revision_id for each in Deployment.objects.exclude(status="killed")] == [
        Revision.objects.get(number=2).pk
    ]


def test_a_return_is_refused_after_another_deploy(cast: Cast, client: Client, two: Agent) -> None:
    body = assert_refused(restore(client, two, 1, {"newest": 1}), 409, "revision_changed")
    page = client.post(page_of(two, "revisions/1/restore"), {"newest": 1, "idempotency_key": "back"})

    assert body["detail"].endswith("its newest revision is 2. Compare again.")
    assert (page.status_code, 'name="newest" value="2"' in read_html(page)) == (409, True)
    assert not Deployment.objects.filter(generation=2).exists()
    assert Revision.objects.count() == 2


def test_a_return_takes_no_secret_of_others(cast: Cast, client: Client, two: Agent) -> None:
    update_agent(two, actor=cast.operator, environment={})
    cast.acme.secret_prefix = "elsewhere/"
    cast.acme.save()

    body = assert_refused(restore(client, two, 2), 400, "invalid")

    assert body["errors"]["environment"] == ["MODEL_KEY: the secret's name must begin with elsewhere/."]


def push(aws: LocalAws, build: str) -> str:
    """Push another build of `v1`, which moves the tag, and return its digest."""
    image = {"repository": "billing-agent", "tags": ["v1"], "build": build}
    return str(aws.seed(images=[image])["images"]["billing-agent:v1"])


# --- in ECS ---------------------------------------------------------------------------------------------------------------


def test_a_return_runs_the_same_digest_again(cast: Cast, client: Client, runtime: Runtime) -> None:
    """The tag moves between the two deploys. The revision does not."""
    agent = make_agent(cast, "Billing agent", image=f"{REPOSITORY}:v1")
    digests, made = [], []
    for build in ("first", "second"):
        digests.append(push(runtime.local_aws, build))
        made.append(runtime.run(create_deployment(agent, actor=cast.operator), "ready"))
    kept, moved = made
    live_before = moved.live_revision

    restore(client, agent, 1)
    pages = [read_html(client.get(path)) for path in (page_of(agent), f"/o/acme/deployments/{moved.pk}/")]
    live_during = runtime.run(moved, "running").live_revision
    runtime.run(moved, "ready")

    kept.refresh_from_db()
    runs = ecs.describe_task_definition(moved.aws_target, str(moved.task_definition)).images
    assert list(Revision.objects.order_by("number").values_list("digest", flat=True)) == [*digests, digests[0]]
    assert list(runs.values()) == [f"{REPOSITORY}@{digests[0]}"]
    assert live_before == live_during == Revision.objects.get(number=2)
    assert moved.live_revision == moved.target_revision == Revision.objects.get(number=3)
    assert (kept.target_revision, kept.generation) == (Revision.objects.get(number=1), 1)
    assert all("Live: revision 2" in page and "Target: revision 3" in page for page in pages)
    assert "Rolling out" not in read_html(client.get(page_of(agent)))


# --- pages ----------------------------------------------------------------------------------------------------------------


def test_the_agents_page_shows_its_worst_status(cast: Cast, client: Client, agent: Agent) -> None:
    shown = []
    for status in ("ready", "running", "failed", "ready"):
        make_deployment(cast, agent, status)
        page = read_html(client.get(page_of(agent)))
        shown.append(page.partition("<dt>Status</dt>")[2].partition("</span>")[0].rpartition(">")[2].strip())

    assert shown == ["Ready", "Running", "Failed", "Running"]
    assert client.get(f"{AGENTS}/{agent.pk}").json()["status"] == "running"


def test_the_page_shows_the_differences_first(client: Client, two: Agent) -> None:
    page = read_html(client.get(page_of(two, "revisions/1/restore")))
    before_button = page.partition("Return to revision 1</button>")[0]
    answer = client.post(page_of(two, "revisions/1/restore"), {"newest": 2, "idempotency_key": "back"}, follow=True)

    for said in (
        "LOG_LEVEL",
        f"{REPOSITORY}:v2",
        "runs these settings already",
        "has failed. ECS starts 1 task",
    ):
        assert said in before_button
    assert "returns to revision 1, as revision 3" in read_html(answer)
    assert ">3</a>" in read_html(client.get(page_of(two, "revisions/")))


def test_a_version_is_picked_from_the_registry(cast: Cast, client: Client, platform: LocalAws) -> None:
    images = [{"repository": "billing-agent", "tags": tags} for tags in (["v1"], ["latest", "v1.2.0"])]
    platform.seed(images=images)
    agent = make_agent(cast, "Billing agent", image=f"{REPOSITORY}:v1")

    page = read_html(client.get(page_of(agent, "versions")))
    form = read_html(client.get(f"/o/acme/deployments/new?agent={agent.pk}&version=v1.2.0"))
    edit = read_html(client.get(page_of(agent, f"edit?image={REPOSITORY}:v1.2.0")))

    assert f"agent={agent.pk}&amp;version=v1.2.0" in page
    assert 'name="version" value="v1.2.0"' in form
    assert f'value="{REPOSITORY}:v1.2.0"' in edit


def test_another_registry_is_said(cast: Cast, client: Client) -> None:
    agent = make_agent(cast, image="ghcr.io/acme/agent:v1")

    assert "Only the versions in Amazon ECR can be listed." in read_html(client.get(page_of(agent, "versions")))


# --- after the release before -------------------------------------------------------------------------------------------


def test_deployments_of_the_release_before_get_revisions(cast: Cast, client: Client, agent: Agent) -> None:
    """It leaves the column empty. Its page and a restart work without a revision too."""
    fields = {"organization": cast.acme, "agent": agent, "cpu": 256, "memory": 512, "cluster": "acme-prod"}
    images = [f"{REPOSITORY}:v1@sha256:{'a' * 64}", f"{REPOSITORY}:v2"]
    first, second = (
        Deployment.objects.create(
            **fields, image=image, replicas=1, status=status, service_name=image, created_by=cast.operator
        )
        for image, status in zip(images, ("ready", "failed"), strict=True)
    )
    page = client.get(f"/o/acme/deployments/{first.pk}/")

    with connection.cursor() as cursor:
        cursor.execute(import_module("deployments.migrations.0031_first_revisions").FORWARD)

    made = list(Revision.objects.order_by("number").values_list("number", "image", "digest"))
    assert "not recorded" in read_html(page)
    assert made == [(1, images[0], f"sha256:{'a' * 64}"), (2, images[1], None)]
    first.refresh_from_db()
    second.refresh_from_db()
    assert first.live_revision == first.target_revision == Revision.objects.get(number=1)
    assert (second.live_revision, second.target_revision) == (None, Revision.objects.get(number=2))
    send_json(client, "post", f"{DEPLOYMENTS}/{second.pk}/restart", {})
    assert Revision.objects.get(number=3).image == agent.image
