"""The webhook inboxes of the local AWS: messages are stored as received and answered as configured."""

import io
import json
import time
import urllib.error
import urllib.request
import uuid
from typing import Any

import pytest
from django.core.management import call_command

from portal.sandbox.management.commands.sandbox import Command
from tests.local_aws import ControlApiError, LocalAws


def deliver(url: str, body: Any, **headers: str) -> tuple[int, str]:
    wanted = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=wanted)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.fixture
def name() -> str:
    return f"hook-{uuid.uuid4().hex[:8]}"


def test_a_delivery_is_kept_as_it_came(aws: LocalAws, name: str) -> None:
    began = time.time()

    answered = deliver(aws.webhook_inbox_url(name), {"type": "upgrade.ended", "text": "é"}, webhook_id="msg_1")

    assert answered == (200, "ok")
    (message,) = aws.webhook_inbox(name)
    assert json.loads(message["body"]) == {"type": "upgrade.ended", "text": "é"}
    assert message["headers"]["webhook-id"] == "msg_1"
    assert message["headers"]["content-type"] == "application/json"
    assert (message["answered"], message["received_at"] >= began) == (200, True)


def test_inboxes_are_kept_apart_and_emptied(aws: LocalAws, name: str) -> None:
    deliver(aws.webhook_inbox_url(name), {"number": 1})
    deliver(aws.webhook_inbox_url(f"{name}-other"), {"number": 2})

    assert aws.call("DELETE", f"inbox/{name}") == {"removed": 1}

    assert aws.webhook_inbox(name) == []
    assert [json.loads(each["body"]) for each in aws.webhook_inbox(f"{name}-other")] == [{"number": 2}]


def test_inbox_fails_a_set_number_of_deliveries(aws: LocalAws, name: str) -> None:
    aws.answer_webhook_inbox(name, 503, times=2)

    answers = [deliver(aws.webhook_inbox_url(name), {"number": number})[0] for number in range(3)]

    assert answers == [503, 503, 200]
    assert [each["answered"] for each in aws.webhook_inbox(name)] == [503, 503, 200]


def test_inbox_answers_slowly_and_redirects(aws: LocalAws, name: str) -> None:
    aws.answer_webhook_inbox(name, 200, seconds=0.4)
    began = time.monotonic()
    deliver(aws.webhook_inbox_url(name), {})
    took = time.monotonic() - began

    aws.answer_webhook_inbox(name, 307)
    moved, _ = deliver(aws.webhook_inbox_url(name), {})

    assert took > 0.4
    assert moved == 307


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"status": 99}, "`status`"),
        ({"status": "200"}, "`status`"),
        ({"status": 500, "times": 0}, "`times`"),
        ({"seconds": -1}, "`seconds`"),
        ({"colour": 1}, "`colour`"),
        (["no object"], "JSON object"),
    ],
)
def test_invalid_answer_settings_name_the_field(aws: LocalAws, name: str, body: Any, named: str) -> None:
    with pytest.raises(ControlApiError) as refused:
        aws.call("PUT", f"inbox/{name}", body)

    assert refused.value.status == 400
    assert named in refused.value.message


def test_bad_names_and_methods_are_refused(aws: LocalAws, name: str) -> None:
    for method, path, status in (("GET", "inbox/a.b", 404), ("GET", "inbox/a/b", 404), ("PATCH", f"inbox/{name}", 405)):
        with pytest.raises(ControlApiError) as refused:
            aws.call(method, path)

        assert refused.value.status == status


def test_the_command_shows_sets_and_empties(aws: LocalAws, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.url)

    def run(*arguments: str) -> str:
        output = io.StringIO()
        call_command(Command(stdout=output), "inbox", name, *arguments)
        return output.getvalue()

    assert run("--answer", "500", "--times", "1") == f"{name} answers 500\n"
    deliver(aws.webhook_inbox_url(name), {"hello": "world"}, webhook_id="msg_7")
    shown = run()
    assert "answered 500" in shown
    assert "  webhook-id: msg_7\n" in shown
    assert '  {"hello": "world"}\n' in shown
    assert run("--clear") == "cleared 1\n"
    assert run() == ""
