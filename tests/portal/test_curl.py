"""Copy as curl: the commands are complete, safe in a shell, and return from the API what the page shows."""

import csv
import io
import json
import re
import shlex
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.test import Client

from portal.audit import record
from portal.models import AuditKind, User
from portal.web.curl import curl_command
from tests.conftest import Cast
from tests.deployments.conftest import make_agent, make_deployment
from tests.local_aws import LocalAws
from tests.upgrades.conftest import make_upgrade
from upgrades.states import Status

SignIn = Callable[[User], Client]
HOSTILE = [
    "it's",
    '$(touch /tmp/x) `id` "$HOME"',
    "a&b;c|d>e",
    "line\nbreak \\ ' \" !",
    "é \u2028 \U0001f680",
    "--x @file",
]


def parse_commands(response: Any) -> list[list[str]]:
    """Return each command of a page, split into words as by a shell."""
    assert response.status_code == 200
    found = re.findall(r'<code id="curl-[^"]+-text">(.*?)</code>', response.content.decode(), re.DOTALL)
    return [shlex.split(unescape(command)) for command in found]


def header(words: list[str], name: str) -> str:
    return next(word.partition(": ")[2] for word in words if word.startswith(f"{name}: "))


def body(words: list[str]) -> Any:
    return json.loads(words[words.index("-d") + 1])


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_one_shell_word(text: str) -> None:
    command = curl_command("https://portal.example/x", method="POST", organization="acme", fields={"reason": text})

    words = shlex.split(command)
    assert body(words) == {"reason": text}
    assert "\n" not in command
    assert words[:3] == ["curl", "-b", "cookies.txt"]
    assert words[-1] == "https://portal.example/x"
    assert len(words) == 16


def test_unsafe_methods_carry_placeholders_and_origin() -> None:
    command = curl_command(
        "https://portal.example/x", method="POST", organization="acme", fields={"force": False, "why": ""}
    )

    assert '-H "X-CSRFToken: $CSRF"' in command
    words = shlex.split(command)
    assert header(words, "Origin") == "https://portal.example"
    assert header(words, "X-Organization") == "acme"
    assert body(words) == {"force": False}
    plain = curl_command("http://127.0.0.1:8000/x", method="POST", organization="acme", fields={})
    assert "Origin" not in plain
    assert "-d" not in shlex.split(plain)


def test_a_query_omits_empty_fields() -> None:
    fields = {"status": "FAILED", "q": "a b&c", "skip": 0, "agent_id": None, "version": ""}

    words = shlex.split(curl_command("http://x/list", method="GET", organization="acme", fields=fields))

    assert words[-1] == "http://x/list?status=FAILED&q=a+b%26c"
    assert "X-CSRFToken: $CSRF" not in words


@pytest.mark.django_db
def test_the_history_command_finds_what_the_page_finds(cast: Cast, client_for: SignIn) -> None:
    failed = make_upgrade(cast.acme, by=cast.operator, target="agent", statuses=[Status.FAILED])
    make_upgrade(cast.acme, by=cast.operator, target="agent", statuses=[Status.SUCCESS])
    client = client_for(cast.consultant)

    page = client.get("/o/acme/upgrades/", {"status": "FAILED", "initiated_by": cast.operator.email})

    [words] = parse_commands(page)
    answer = client.get(words[-1], headers={"X-Organization": header(words, "X-Organization")})
    assert [item["upgrade_id"] for item in answer.json()["items"]] == [failed.upgrade_id]
    session = client.cookies["sessionid"].value
    assert session not in page.content.decode()
    assert client.cookies["csrftoken"].value not in " ".join(words)


@pytest.mark.django_db
def test_the_activity_command_gets_the_filtered_file(cast: Cast, client_for: SignIn) -> None:
    for subject in ("upgrade-1", "upgrade-2"):
        record(AuditKind.UPGRADE_ENDED, subject=subject, actor=cast.operator, organization=cast.acme)
    client = client_for(cast.viewer)

    page = client.get("/o/acme/activity/", {"subject": "upgrade-1", "who": cast.operator.email, "skip": 0})

    [words] = parse_commands(page)
    rows = list(csv.DictReader(io.StringIO(client.get(words[-1]).content.decode("utf-8-sig"))))
    assert [row["subject"] for row in rows] == ["upgrade-1"]
    assert "Copy ID" not in page.content.decode()


@pytest.mark.django_db
@pytest.mark.parametrize("page", ["upgrades/?status=unknown", "activity/?kind=unknown"])
def test_invalid_filters_offer_no_command(cast: Cast, client_for: SignIn, page: str) -> None:
    assert parse_commands(client_for(cast.viewer).get(f"/o/acme/{page}")) == []


@pytest.mark.django_db
def test_the_api_answers_the_command_of_each_page(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, target="agent", statuses=[Status.SUCCESS])
    agent = make_agent(cast)
    deployment = make_deployment(cast, agent)
    client = client_for(cast.consultant)
    pages = [
        f"upgrades/{upgrade.upgrade_id}/",
        f"upgrades/{upgrade.upgrade_id}/evidence",
        "versions/",
        f"deployments/?agent={agent.pk}&q=supp&status=deploying&sort=agent",
        f"deployments/{deployment.pk}/",
        "agents/?q=supp",
        f"agents/{agent.pk}/",
    ]

    for page in pages:
        [words] = parse_commands(client.get(f"/o/acme/{page}"))
        answer = client.get(words[-1], headers={"X-Organization": header(words, "X-Organization")})
        assert answer.status_code == 200, (page, words, answer.content)


@pytest.mark.django_db
def test_the_form_of_an_upgrade_offers_its_choices(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    client = client_for(cast.operator)

    page = client.get("/o/acme/upgrades/new", {"service": "agent", "force": "1", "reason": 'OPS-1: it\'s "late"'})

    [words] = parse_commands(page)
    sent = {"service": "agent", "version": "latest", "force_new_deployment": True, "reason": 'OPS-1: it\'s "late"'}
    assert body(words) == sent
    answer = client.post(words[-1], sent, content_type="application/json", headers={"X-Organization": "acme"})
    assert answer.status_code == 202


@pytest.mark.django_db
def test_the_page_of_a_command_offers_its_route(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    agent = make_agent(cast)
    deployment = make_deployment(cast, agent)
    client = client_for(cast.operator)

    [scale] = parse_commands(client.get(f"/o/acme/deployments/{deployment.pk}/scale"))
    [kill] = parse_commands(client.get(f"/o/acme/deployments/{deployment.pk}/kill"))

    assert body(scale) == {"replicas": 2}
    assert scale[-1].endswith(f"/api/v1/deployments/{deployment.pk}/scale")
    assert kill[kill.index("-X") + 1] == "DELETE"
    assert kill[-1].endswith(f"/api/v1/deployments/{deployment.pk}")
