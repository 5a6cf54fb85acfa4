"""Agents through the API: create, read and change, and the rules for image, size and environment."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from deployments.models import Agent
from portal.aws.sts import own_account
from portal.models import AuditEvent, Organization, User
from tests.conftest import Cast
from tests.deployments.conftest import AGENTS, IMAGE, assert_refused, make_agent, make_deployment, send_json
from tests.local_aws import LocalAws

pytestmark = pytest.mark.django_db

SignIn = Callable[[User], Client]

SECRET = "arn:aws:secretsmanager:eu-central-1:111111111111:secret:acme/openai-Ab12Cd"


@pytest.fixture
def client(local_aws: LocalAws, cast: Cast, client_for: SignIn) -> Client:
    return client_for(cast.operator)


@pytest.mark.parametrize("path", ["/agents", AGENTS])
def test_an_agent_is_created(client: Client, cast: Cast, path: str) -> None:
    body = {
        "name": "  Support agent ",
        "image": IMAGE,
        "cpu": 512,
        "memory": 1024,
        "description": "Answers tickets.",
        "environment": {"LOG_LEVEL": "info", "OPENAI_API_KEY": SECRET},
    }

    response = send_json(client, "post", path, body)

    record = response.json()
    agent = Agent.objects.get()
    assert response.status_code == 201
    assert response.headers["Location"] == f"{AGENTS}/{agent.pk}"
    assert record == body | {
        "id": str(agent.pk),
        "name": "Support agent",
        "status": "stopped",
        "created_at": record["created_at"],
    }
    assert client.get(f"{path}/{agent.pk}").json() == record
    audit = AuditEvent.objects.get(kind="agent.created")
    assert (audit.subject, audit.actor) == (str(agent.pk), cast.operator)
    assert SECRET not in str(audit.data)


def test_the_list_has_status_and_total(cast: Cast, client: Client) -> None:
    first, second = make_agent(cast, "First"), make_agent(cast, "Second")
    make_agent(cast, "Theirs", organization=cast.globex)
    make_deployment(cast, first, "deploying")
    make_deployment(cast, second, "failed")

    answer = client.get(AGENTS).json()
    found = client.get(AGENTS, {"q": "SEC"}).json()

    assert [(item["name"], item["status"]) for item in answer["items"]] == [("Second", "stopped"), ("First", "running")]
    assert {**answer, "items": []} == {
        "items": [],
        "total": 2,
        "skip": 0,
        "limit": 50,
        "has_more": False,
        "organization": "acme",
        "q": None,
    }
    assert [item["name"] for item in found["items"]] == ["Second"]


@pytest.mark.parametrize(
    ("count", "status", "sentence"),
    [
        (100, 201, ""),
        (101, 400, "101 variables are too many. The limit is 100."),
        (201, 400, "The request has 201 keys where at most 200 are accepted."),
        (50_000, 400, "The request has 50000 keys where at most 200 are accepted."),
    ],
)
def test_an_environment_has_a_limit(client: Client, count: int, status: int, sentence: str) -> None:
    environment = {f"K{number}": "v" for number in range(count)}

    response = send_json(client, "post", AGENTS, {"name": "Many", "image": IMAGE, "environment": environment})

    assert response.status_code == status
    assert sentence in response.content.decode()
    assert Agent.objects.exists() == (status == 201)


@pytest.mark.parametrize("items", [[5] * 101, [""] * 250_000, [[]] * 250_000])
def test_a_long_list_is_refused_before_its_items(client: Client, agent: Agent, items: list[Any]) -> None:
    body = {"name": "Many", "image": IMAGE, "not_secrets": items}

    made = assert_refused(send_json(client, "post", AGENTS, body), 400, "invalid")
    changed = assert_refused(send_json(client, "patch", f"{AGENTS}/{agent.pk}", body), 400, "invalid")

    # Each item is wrong, and an error of an item would be named by its position.
    sentence = "Ensure this field has no more than 100 elements."
    assert made["errors"] == changed["errors"] == {"not_secrets": [sentence]}


def test_a_long_value_is_not_searched_for_secrets(client: Client, agent: Agent) -> None:
    body = {"name": "Long", "image": IMAGE, "environment": {"LONG": "-" * 1_000_000}, "not_secrets": ["LONG"]}
    started_at = time.process_time()

    made = assert_refused(send_json(client, "post", AGENTS, body), 400, "invalid")
    changed = assert_refused(send_json(client, "patch", f"{AGENTS}/{agent.pk}", body), 400, "invalid")

    assert time.process_time() - started_at < 2  # 26 s before
    sentence = "LONG: a value can have at most 4096 characters and must not contain NUL."
    assert made["errors"] == changed["errors"] == {"environment": [sentence]}


@pytest.mark.parametrize("value", [5, "x" * 4097])
def test_ten_bad_variables_are_named(client: Client, value: Any) -> None:
    environment = {f"K{number}": value for number in range(60)}

    response = send_json(client, "post", AGENTS, {"name": "Bad", "image": IMAGE, "environment": environment})

    sentences = assert_refused(response, 400, "invalid")["errors"]["environment"]
    assert (len(sentences), sentences[-1]) == (11, "And 50 more.")


@pytest.mark.parametrize("name", ["\ud800", "k" * 500_000])
@pytest.mark.parametrize("value", [5, "v"])
def test_a_variables_odd_name_is_answered_shortly(client: Client, name: str, value: Any) -> None:
    response = send_json(client, "post", AGENTS, {"name": "Odd", "image": IMAGE, "environment": {name: value}})

    assert_refused(response, 400, "invalid")
    assert len(response.content) < 500


def test_a_change_is_for_the_next_deployments(cast: Cast, client: Client, agent: Agent) -> None:
    deployment = make_deployment(cast, agent)

    response = send_json(client, "patch", f"{AGENTS}/{agent.pk}", {"image": "agent:v2", "environment": {"A": "b"}})

    assert response.status_code == 200
    assert (response.json()["image"], response.json()["cpu"], response.json()["status"]) == ("agent:v2", 256, "running")
    deployment.refresh_from_db()
    assert deployment.image == IMAGE
    audit = AuditEvent.objects.get(kind="agent.changed")
    assert audit.data == {"name": "Support agent", "fields": ["environment", "image"]}


def test_an_empty_change_leaves_no_audit_row(client: Client, agent: Agent) -> None:
    assert send_json(client, "patch", f"{AGENTS}/{agent.pk}", {"image": IMAGE}).status_code == 200
    assert send_json(client, "patch", f"{AGENTS}/{agent.pk}", {}).status_code == 200

    assert not AuditEvent.objects.filter(kind="agent.changed").exists()


@pytest.mark.parametrize(("person", "status"), [("viewer", 403), ("outsider", 404), (None, 401)])
def test_others_may_not_change(cast: Cast, agent: Agent, client_for: SignIn, person: str | None, status: int) -> None:
    client = client_for(getattr(cast, person)) if person else Client()

    answers = [
        send_json(client, "post", AGENTS, {"name": "X", "image": "a:1"}, X_Organization="acme"),
        send_json(client, "patch", f"{AGENTS}/{agent.pk}", {"name": "X"}),
    ]

    assert [answer.status_code for answer in answers] == [status, status]
    assert list(Agent.objects.values_list("name", flat=True)) == ["Support agent"]


def test_an_agent_needs_an_image(client: Client) -> None:
    refused = assert_refused(send_json(client, "post", AGENTS, {"name": "Bare"}), 400, "invalid")

    assert refused["errors"] == {"image": ["This field is required."]}
    assert not Agent.objects.exists()


def test_an_agent_is_never_deleted(client: Client, agent: Agent) -> None:
    assert_refused(client.delete(f"{AGENTS}/{agent.pk}"), 405, "method_not_allowed")

    assert Agent.objects.filter(pk=agent.pk).exists()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 81}, "name"),
        ({"name": 7}, "name"),
        ({"image": "Not An Image"}, "image"),
        ({"image": "repo:tag@sha256:short"}, "image"),
        ({"image": "https://registry/repo"}, "image"),
        ({"cpu": 100}, "cpu"),
        ({"cpu": "256"}, "cpu"),
        ({"memory": 4096}, "memory"),
        ({"cpu": 1024, "memory": 1024}, "memory"),
        ({"environment": {"A B": "x"}}, "environment"),
        ({"environment": {"A": 1}}, "environment"),
        ({"environment": ["A"]}, "environment"),
        ({"environment": {"ECS_X": "x"}}, "environment"),
        ({"environment": {"API_KEY": "plain"}}, "environment"),
        ({"environment": {"SETTING": "AKIAIOSFODNN7EXAMPLE"}}, "environment"),
        ({"status": "running"}, "status"),
        ({"organization": "globex"}, "organization"),
    ],
)
def test_bad_input_is_named(client: Client, agent: Agent, body: dict[str, Any], field: str) -> None:
    good = {"name": "Another", "image": IMAGE}

    made = assert_refused(send_json(client, "post", AGENTS, good | body), 400, "invalid")
    changed = assert_refused(send_json(client, "patch", f"{AGENTS}/{agent.pk}", body), 400, "invalid")

    assert set(made["errors"]) == set(changed["errors"]) == {field}
    assert Agent.objects.count() == 1


def test_a_refused_secret_is_named_and_never_repeated(client: Client) -> None:
    body = {"name": "A", "image": IMAGE, "environment": {"DB_PASSWORD": "hunter2-canary"}}

    response = send_json(client, "post", AGENTS, body)

    (sentence,) = response.json()["errors"]["environment"]
    assert sentence.startswith("DB_PASSWORD is named like a secret but has a plain value.")
    assert "Secrets Manager" in sentence
    assert "hunter2" not in response.content.decode()


def test_names_are_unique_in_an_organization(cast: Cast, client: Client, agent: Agent) -> None:
    other = make_agent(cast, "Other")

    made = assert_refused(send_json(client, "post", AGENTS, {"name": "SUPPORT agent", "image": IMAGE}), 400, "invalid")
    changed = send_json(client, "patch", f"{AGENTS}/{other.pk}", {"name": "Support Agent"})

    assert "already has an agent named" in made["errors"]["name"][0]
    assert_refused(changed, 400, "invalid")
    make_agent(cast, "Support agent", organization=cast.globex)


def test_the_same_key_gives_the_same_agent(client: Client) -> None:
    body = {"name": "A", "image": IMAGE}

    answers = [send_json(client, "post", AGENTS, body, Idempotency_Key="k").json() for _ in range(2)]

    assert answers[0] == answers[1]
    assert Agent.objects.count() == 1


# --- which secrets an agent may name ----------------------------------------------------------------------------------

ELSEWHERE = "arn:aws:ssm:eu-central-1:333333333333:parameter/acme/key"


def create_with(client: Client, secret: str) -> Any:
    body = {"name": "With a secret", "image": IMAGE, "environment": {"MODEL_KEY": secret}}
    return send_json(client, "post", AGENTS, body)


@pytest.mark.parametrize(
    ("settings_of_acme", "settings_of_globex", "secret", "said"),
    [
        ({}, {}, SECRET, None),
        ({}, {}, ELSEWHERE, "Agents of Acme Robotics may use secrets of 111111111111."),
        ({"secret_accounts": "333333333333, 444444444444"}, {}, ELSEWHERE, None),
        ({"secret_accounts": "333333333333"}, {"secret_accounts": "333333333333"}, ELSEWHERE, "is shared"),
        ({"deployment_role_arn": "arn:aws:iam::333333333333:role/portal"}, {}, ELSEWHERE, None),
        ({"deployment_role_arn": "arn:aws:iam::333333333333:role/portal"}, {}, SECRET, "secrets of 333333333333."),
        ({}, {"deployment_role_arn": ""}, SECRET, "must first set the prefix of Acme Robotics's secrets"),
        ({}, {"deployment_role_arn": "", "deployment_stack": ""}, SECRET, None),
        ({"secret_prefix": "acme/"}, {"deployment_role_arn": ""}, SECRET, None),
        ({"secret_prefix": "other/"}, {"deployment_role_arn": ""}, SECRET, "must begin with other/."),
        ({"secret_prefix": "acm/"}, {}, SECRET, "must begin with acm/."),
        ({"secret_prefix": "acme/", "secret_accounts": "333333333333"}, {}, ELSEWHERE, None),
    ],
)
def test_a_secret_belongs_to_the_organization(
    cast: Cast,
    client: Client,
    settings_of_acme: dict[str, str],
    settings_of_globex: dict[str, str],
    secret: str,
    said: str | None,
) -> None:
    Organization.objects.filter(pk=cast.acme.pk).update(**settings_of_acme)
    Organization.objects.filter(pk=cast.globex.pk).update(**settings_of_globex)

    response = create_with(client, secret)

    if said is None:
        assert response.status_code == 201, response.json()
    else:
        assert said in str(assert_refused(response, 400, "invalid")["errors"]["environment"])


def test_an_agent_keeps_the_secrets_that_it_has(cast: Cast, client: Client) -> None:
    pk = create_with(client, SECRET).json()["id"]
    Organization.objects.filter(pk=cast.acme.pk).update(secret_prefix="new/")
    same, other = {"MODEL_KEY": SECRET, "LOG_LEVEL": "info"}, {"OTHER_KEY": SECRET}

    assert send_json(client, "patch", f"{AGENTS}/{pk}", {"environment": same}).status_code == 200
    assert_refused(send_json(client, "patch", f"{AGENTS}/{pk}", {"environment": other}), 400, "invalid")


def test_a_secret_is_not_taken_while_the_account_is_not_known(client: Client, local_aws: LocalAws) -> None:
    own_account.cache_clear()
    local_aws.fault("server_error", action="GetCallerIdentity")

    refused = assert_refused(create_with(client, SECRET), 400, "invalid")

    assert "cannot be checked" in str(refused["errors"]["environment"])


def test_what_is_no_secret_is_taken_and_recorded(cast: Cast, client: Client) -> None:
    environment = {"X_KEY": "9da39a3ee5e6b4b0d3255bfef95601890afd8070", "LOG_LEVEL": "info"}
    body = {"name": "With a key", "image": IMAGE, "environment": environment}
    assert_refused(send_json(client, "post", AGENTS, body), 400, "invalid")

    made = send_json(client, "post", AGENTS, body | {"not_secrets": ["X_KEY", "LOG_LEVEL"]})

    assert made.status_code == 201
    row = AuditEvent.objects.get(kind="agent.created")
    assert (row.actor_email, row.data["not_secrets"]) == ("operator@example.com", ["X_KEY"])
    assert environment["X_KEY"] not in str(row.data)
    path = f"{AGENTS}/{made.json()['id']}"
    assert send_json(client, "patch", path, {"environment": environment | {"LOG_LEVEL": "debug"}}).status_code == 200
    other = environment | {"X_KEY": "0da39a3ee5e6b4b0d3255bfef95601890afd8070"}
    assert_refused(send_json(client, "patch", path, {"environment": other}), 400, "invalid")
    assert send_json(client, "patch", path, {"environment": other, "not_secrets": ["X_KEY"]}).status_code == 200
    rows = AuditEvent.objects.filter(kind="agent.changed").order_by("pk").values_list("data", flat=True)
    assert [each.get("not_secrets") for each in rows] == [None, ["X_KEY"]]
