"""Log lines: JSON in production, the request id from the click to the call, one line for each command, no forged lines."""

import json
import logging
import logging.config
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from celery.app.log import Logging
from django.conf import settings
from django.test import Client

from portal.celery import app
from portal.log_lines import JsonFormatter, TextFormatter
from portal.models import Heartbeat, User
from portal.request_id import carrying, request_id_var, request_pool
from portal.wakeup import broker_connection, dispatch
from tests.conftest import Cast, Engine
from tests.deployments.conftest import make_agent, make_deployment, send_json
from tests.upgrades.conftest import UPGRADE, make_upgrade, post_json
from upgrades.models import Upgrade
from upgrades.states import Status

SignIn = Callable[[User], Client]
REQUEST_ID = "click-1f3a"


def make_record(message: str, *args: Any, **more: Any) -> logging.LogRecord:
    record = logging.LogRecord("portal.test", logging.INFO, __file__, 1, message, args, more.pop("exc_info", None))
    record.__dict__ |= {"request_id": REQUEST_ID, **more}
    return record


def find_commands(log: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in log.records if record.name == "portal.command_log"]


def find_calls(log: pytest.LogCaptureFixture, action: str) -> list[dict[str, str]]:
    calls = [record for record in log.records if record.name == "portal.aws.observed"]
    return [vars(call)["fields"] for call in calls if vars(call)["fields"]["action"] == action]


HOSTILE = "one\r\n2026-01-01 INFO forged\x1b[2J\u202e\u2028two"


def test_a_json_line_is_one_line_whatever_it_says() -> None:
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        record = make_record("Not Found: %s", HOSTILE, exc_info=sys.exc_info(), fields={"user_id": 3, "level": "none"})

    line = JsonFormatter().format(record)

    assert line.isascii()
    assert line.isprintable()
    found = json.loads(line)
    assert found["message"] == f"Not Found: {HOSTILE}"
    assert (found["level"], found["request_id"], found["user_id"]) == ("INFO", REQUEST_ID, 3)
    assert found["exception"].startswith("Traceback")


def test_json_leaves_out_what_libraries_attach() -> None:
    line = JsonFormatter().format(make_record("Bad Request", request="GET /?code=secret", status_code=400))

    assert "secret" not in line


def test_no_caller_forges_a_line_of_text() -> None:
    line = TextFormatter("%(levelname)s %(message)s").format(make_record("Not Found: %s", HOSTILE))

    assert line == r"INFO Not Found: one\r\n2026-01-01 INFO forged\x1b[2J\u202e\u2028two"


def test_production_writes_json_and_the_demo_text() -> None:
    """Read the settings as a production process does, in a process of its own."""
    show = (
        "from portal import settings; print(settings.LOGGING['handlers']['console']['formatter'], settings.LOG_FORMAT)"
    )
    env = {
        "SECRET_KEY": "k" * 50,
        "ALLOWED_HOSTS": "portal.example",
        "CACHE_URL": "redis://localhost",
        "CELERY_BROKER_URL": "redis://localhost",
        "DATABASE_URL": "postgresql://localhost/none",
    }
    shown = subprocess.run([sys.executable, "-c", show], env=env, capture_output=True, text=True, check=True)

    assert shown.stdout.split() == ["json", "json"]
    assert settings.LOGGING["handlers"]["console"]["formatter"] == "text"
    logging.config.DictConfigurator(settings.LOGGING)  # every class in it can be found


@pytest.mark.parametrize(("given", "taken"), [(REQUEST_ID, REQUEST_ID), ("a\nb", "-"), ("", "-")])
def test_a_message_carries_the_request_id(db: None, given: str, taken: str) -> None:
    with broker_connection() as broker:
        queue = app.amqp.queues[app.conf.task_default_queue].bind(broker.default_channel)
        queue.queue_declare()
        queue.purge()
        token = request_id_var.set(given)
        dispatch("portal.tasks.worker_beat")
        request_id_var.reset(token)
        message = queue.get()
    seen: list[str] = []

    run_as_worker(message, lambda: seen.append(request_id_var.get()))

    assert (seen, request_id_var.get()) == ([taken], "-")
    assert Heartbeat.objects.get().name == "worker"


def test_a_worker_logs_what_the_settings_say() -> None:
    """Celery's default is WARNING, so that the lines about an upgrade were missing."""
    level = logging.getLogger().level

    Logging(app).setup_logging_subsystem(loglevel="ERROR")

    assert logging.getLogger().level == level


def run_as_worker(message: Any, before: Callable[[], None]) -> None:
    """Run the message's task as a worker's child does, and call `before` when its own work begins."""
    from celery.app.trace import build_tracer
    from celery.signals import task_prerun

    app.loader.import_default_modules()
    task = app.tasks[message.headers["task"]]
    receiver = task_prerun.connect(lambda **_: before(), weak=False)
    args, kwargs, _ = message.decode()
    try:
        tracer = build_tracer(task.name, task, app=app)
        assert tracer(message.headers["id"], args, kwargs, request=message.headers).info is None
    finally:
        task_prerun.disconnect(receiver)


def test_the_threads_of_a_request_have_its_id() -> None:
    with carrying(REQUEST_ID), request_pool(2, "probes") as pool:
        found = [pool.submit(request_id_var.get).result() for _ in range(4)]

    assert found == [REQUEST_ID] * 4


def test_the_request_id_follows_an_upgrade_to_aws(
    cast: Cast, client_for: SignIn, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    body = {"service": "agent", "version": "latest", "force_new_deployment": True}
    answer = post_json(client_for(cast.operator), UPGRADE, body, X_Request_ID=REQUEST_ID)
    assert answer.status_code == 202

    engine.start(Upgrade.objects.get())

    (sent,) = engine.local_aws.ledger(action="UpdateService")
    (call,) = find_calls(caplog, "ecs:UpdateService")
    assert (call["aws_request_id"], call["result"], call["account"]) == (sent["request_id"], "ok", "own")
    assert f"md/request#{REQUEST_ID}" in sent["user_agent"]
    steps = {vars(record)["request_id"] for record in caplog.records if record.name.startswith("upgrades.engine")}
    assert steps == {REQUEST_ID}


def test_each_command_leaves_one_line_without_an_address(
    cast: Cast, client_for: SignIn, caplog: pytest.LogCaptureFixture, django_capture_on_commit_callbacks: Any
) -> None:
    caplog.set_level(logging.INFO)
    deployment = make_deployment(cast, make_agent(cast))
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    client = client_for(cast.operator)

    with django_capture_on_commit_callbacks(execute=True):
        post_json(client, f"{UPGRADE}/{upgrade.upgrade_id}/stop", {}, X_Request_ID=REQUEST_ID)
        post_json(client, f"{UPGRADE}/{upgrade.upgrade_id}/stop", {})  # changes nothing
        send_json(client, "post", f"/deployments/{deployment.pk}/scale", {"replicas": 3})
        send_json(client, "post", f"/deployments/{deployment.pk}/stop", {})
        send_json(client, "delete", f"/deployments/{deployment.pk}")

    by = {"user_id": cast.operator.pk, "organization": "acme"}
    known = {"upgrade": upgrade.upgrade_id} | by, {"deployment": str(deployment.pk)} | by
    kinds = "upgrade.stop_requested", "deployment.scaled", "deployment.stop_requested", "deployment.killed"
    lines = find_commands(caplog)
    assert [vars(line)["fields"] for line in lines] == [
        known[kind.startswith("deployment")] | {"command": kind} for kind in kinds
    ]
    assert vars(lines[0])["request_id"] == REQUEST_ID
    assert [line for line in lines if "@" in line.getMessage()] == []


def test_a_request_for_another_host_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    answer = Client(raise_request_exception=False).get("/health", headers={"host": "10.0.12.34"})

    assert answer.status_code == 400
    (line,) = [record for record in caplog.records if record.name == "django.security.DisallowedHost"]
    assert line.exc_info is None
    assert "10.0.12.34" in line.getMessage()
