"""A service before and after its rollout: errors, CPU, memory and restarts in equal windows, from the local AWS."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.core.cache import cache
from django.test import Client

from portal.models import User
from tests.conftest import Cast
from tests.deployments.conftest import read_html
from tests.local_aws import LocalAws
from tests.upgrades.conftest import make_upgrade
from upgrades.inventory.comparison import Measure, Sample
from upgrades.inventory.logs import find_source
from upgrades.models import Rollout, Upgrade
from upgrades.pages.before_after import describe_change, is_worse
from upgrades.states import Status

SignIn = Callable[[User], Client]
HTMX = {"HX-Request": "true", "HX-Target": "before-after-agent"}


def address(upgrade: Upgrade, service: str = "agent") -> str:
    return f"/o/acme/upgrades/{upgrade.upgrade_id}/{service}/before-after"


def put_errors(platform: LocalAws, rollout: Rollout, count: int, *, after: float) -> None:
    """Log so many errors of a task of its own, `after` seconds after the end of the rollout."""
    source, client = find_source(rollout), platform.client("logs")
    assert rollout.completed_at is not None
    stream = f"{source.stream_prefix}put{after:.0f}"
    client.create_log_stream(logGroupName=source.log_group, logStreamName=stream)
    at = int((rollout.completed_at.timestamp() + after) * 1000)
    lines = [{"timestamp": at + number, "message": f"ERROR number {number}"} for number in range(count)]
    client.put_log_events(logGroupName=source.log_group, logStreamName=stream, logEvents=lines)


@pytest.fixture
def later(done: Upgrade, platform: LocalAws) -> Iterator[Upgrade]:
    """Return an upgrade of the agent service, 25 minutes after its end on the clocks of AWS and of the portal."""
    platform.advance(1200)
    put_errors(platform, done.rollouts.get(), 150, after=60)
    cache.clear()
    with time_machine.travel(platform.now()):
        yield done


def test_the_card_compares_equal_windows_with_their_samples(
    cast: Cast, client_for: SignIn, later: Upgrade, platform: LocalAws
) -> None:
    client = client_for(cast.viewer)
    page = read_html(client.get(f"/o/acme/upgrades/{later.upgrade_id}/"))

    answer = client.get(address(later), headers=HTMX)

    comparison = answer.context["comparison"]
    measures = {measure.name: measure for measure in comparison.measures}
    text = read_html(answer)
    rollout = later.rollouts.get()
    assert f'hx-get="{address(later)}"' in page
    assert "<html" not in text
    assert (comparison.length, comparison.problems) == (timedelta(minutes=15), [])
    assert (comparison.before_until, comparison.after) == (rollout.started_at, rollout.completed_at)
    # Some lines of the local AWS are errors as well.
    assert measures["errors"].after.value >= 150 > measures["errors"].before.value
    assert measures["errors"].after.size > measures["errors"].after.value
    assert measures["cpu"].before.size >= 13
    assert measures["cpu"].change is not None
    assert measures["restarts"].before.value == 0
    assert measures["restarts"].after.value == 4  # deploy() of the fixture came after the record's end
    assert '<td class="worse">+4</td>' in text
    assert "records</span>" in text
    assert "data-live" not in text


def test_a_complete_comparison_is_read_once(cast: Cast, client_for: SignIn, later: Upgrade, platform: LocalAws) -> None:
    client = client_for(cast.viewer)
    first = read_html(client.get(address(later), headers=HTMX))
    platform.fault("access_denied", action="DescribeServices")

    again = read_html(client.get(address(later), headers=HTMX))

    assert again == first


def test_a_growing_comparison_is_read_every_half_minute(
    cast: Cast, client_for: SignIn, done: Upgrade, platform: LocalAws
) -> None:
    client, begin = client_for(cast.viewer), platform.now() // 60 * 60
    problems = []
    for seconds in (1, 25, 35):
        with time_machine.travel(begin + seconds):
            problems.append(client.get(address(done), headers=HTMX).context["comparison"].problems)
        platform.fault("access_denied", action="DescribeServices")

    assert problems[:2] == [[], []]
    assert "ecs:DescribeServices" in problems[2][0]


def test_silence_of_aws_is_said_and_asked_again(
    cast: Cast, client_for: SignIn, later: Upgrade, platform: LocalAws
) -> None:
    platform.fault("access_denied", action="FilterLogEvents")

    text = read_html(client_for(cast.viewer).get(address(later), headers=HTMX))

    assert "logs:FilterLogEvents" in text
    assert text.count("Not enough data") == 2
    assert "data-live" in text


@pytest.mark.parametrize(
    ("changes", "summary", "environment"),
    [
        ({}, "Only the image changed", "unchanged"),
        ({"cpu": "2048"}, "More than the image changed", "unchanged"),
        (
            {"environment": [{"name": "LOG_LEVEL", "value": "loud-value"}]},
            "More than the image changed",
            'added: <span class="mono">LOG_LEVEL</span>',
        ),
    ],
)
def test_the_card_names_what_the_rollout_changed(
    cast: Cast,
    client_for: SignIn,
    later: Upgrade,
    platform: LocalAws,
    changes: dict[str, Any],
    summary: str,
    environment: str,
) -> None:
    """It names variables, and never shows their values."""
    ecs, earlier = platform.client(), later.rollouts.get().previous_task_definition
    found: Any = ecs.describe_task_definition(taskDefinition=earlier)["taskDefinition"]
    definition = {name: found[name] for name in ("family", "containerDefinitions", "cpu", "memory")}
    definition["containerDefinitions"][0] |= {
        "image": "team/agent:v9.9.1",
        "environment": changes.get("environment", []),
    }
    made = ecs.register_task_definition(**definition | {"cpu": changes.get("cpu", found["cpu"])})
    later.rollouts.update(task_definition=made["taskDefinition"]["taskDefinitionArn"])

    text = " ".join(read_html(client_for(cast.viewer).get(address(later), headers=HTMX)).split())

    assert summary in text
    assert f"<dt>Environment</dt> <dd> {environment}" in text
    assert ("1024, 2048 → 2048, 2048" in text) == ("cpu" in changes)
    assert "loud-value" not in text


def test_what_the_rollout_changed_may_be_gone(
    cast: Cast, client_for: SignIn, later: Upgrade, platform: LocalAws
) -> None:
    platform.fault("access_denied", action="DescribeTaskDefinition")

    text = read_html(client_for(cast.viewer).get(address(later), headers=HTMX))

    assert "What it changed could not be read" in text
    assert "Restarts" in text


def test_just_after_the_end_it_says_that_data_is_missing(cast: Cast, client_for: SignIn) -> None:
    """No local AWS runs in this test, so a read would fail."""
    upgrade = make_upgrade(cast.acme, by=cast.operator)

    text = read_html(client_for(cast.viewer).get(address(upgrade)))

    assert "Not enough data." in text
    assert "The comparison begins 2 min after the end." in text
    assert "data-live" in text


def test_the_next_rollout_ends_the_window(cast: Cast, client_for: SignIn, later: Upgrade) -> None:
    rollout = later.rollouts.get()
    assert rollout.completed_at is not None
    following = make_upgrade(cast.acme, by=cast.operator)
    began = rollout.completed_at + timedelta(minutes=6)
    following.rollouts.update(started_at=began, completed_at=began + timedelta(minutes=5))

    answer = client_for(cast.viewer).get(address(later), headers=HTMX)

    assert answer.context["comparison"].length == timedelta(minutes=6)


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("open", "The rollout has not ended yet."),
        ("no_change", "The rollout replaced no task."),
        ("outsider", "Not found"),
    ],
)
def test_what_did_not_roll_has_no_comparison(cast: Cast, client_for: SignIn, case: str, said: str) -> None:
    status = Status.IN_PROGRESS if case == "open" else Status.SUCCESS
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[status])
    if case == "no_change":
        upgrade.rollouts.update(outcome="no_change")
    client = client_for(cast.outsider if case == "outsider" else cast.viewer)

    page: Any = client.get(f"/o/acme/upgrades/{upgrade.upgrade_id}/")
    text = read_html(client.get(address(upgrade)))

    assert b"Before and after" not in page.content
    assert said in text


@pytest.mark.parametrize(
    ("name", "before", "after", "words"),
    [
        ("errors", 0, 5, ("+5", True)),
        ("errors", 10, 12, ("+2", False)),
        ("errors", 4, 1, ("\N{MINUS SIGN}3", False)),
        ("restarts", 0, 1, ("+1", True)),
        ("cpu", 40.5, 60.5, ("+20", False)),
        ("memory", 40.5, 40.5, ("same", False)),
        ("cpu", None, 40.5, ("", False)),
    ],
)
def test_a_change_is_signed_and_chance_is_not_worse(
    name: str, before: float | None, after: float | None, words: tuple[str, bool]
) -> None:
    measured = Measure(name, Sample(before, 100), Sample(after, 100))

    assert (describe_change(measured), is_worse(measured)) == words
