"""The timeline of an upgrade: an entry for each change of state, in the API and on the page."""

import html
import re
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from portal.models import User
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from tests.upgrades.conftest import SIGNED_IN_QUERIES, UPGRADE, assert_refused, make_upgrade
from tests.upgrades.rollouts import get_service_name, trigger
from upgrades.commands.stop import stop_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Upgrade, UpgradeEvent
from upgrades.pages.ecs_sentences import shorten_sentence
from upgrades.states import EventKind, Status

SignIn = Callable[[User], Client]
ECS_SAYS = (
    "(service agent) has started 2 tasks: (task 0a) (task 0b).",
    "(service agent) has started 2 tasks: (task 0c) (task 0d).",
    "(service agent) has stopped 1 running tasks: (task 0a).",
    "(service agent) (deployment ecs-svc/12) deployment failed: tasks failed to start.",
)
transactional = pytest.mark.django_db(transaction=True)


def get_messages(upgrade: Upgrade) -> list[tuple[str, str | None, str]]:
    """Return the entries, oldest first: kind, service, actor."""
    events = UpgradeEvent.objects.filter(upgrade=upgrade).order_by("created_at", "id")
    return [(event.kind, event.service, event.actor) for event in events]


def get_message(upgrade: Upgrade, kind: EventKind, service: str | None = None) -> str:
    events = UpgradeEvent.objects.filter(upgrade=upgrade, kind=kind)
    return str((events.filter(rollout__service=service) if service else events).get().message)


def make_events(upgrade: Upgrade, *kinds: EventKind, at: datetime | None = None) -> None:
    for kind in kinds:
        UpgradeEvent.objects.create(
            organization=upgrade.organization,
            upgrade=upgrade,
            kind=kind,
            message=f"{kind} happened",
            **({"created_at": at} if at else {}),
        )


# --- what is recorded ----------------------------------------------------------------------------------------------


@transactional
def test_the_timeline_covers_a_rollout_from_request_to_end(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = engine.run(
        trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True, reason="OPS-1")
    )

    assert get_messages(upgrade) == [
        ("upgrade.triggered", None, cast.operator.email),
        ("rollout.started", "agent", "system"),
        ("rollout.ended", "agent", "system"),
        ("upgrade.ended", None, "system"),
        ("upgrade.validated", None, "system"),
    ]
    assert get_message(upgrade, EventKind.TRIGGERED) == "Agent service to latest, forced. OPS-1"
    assert str(upgrade.rollouts.get().deployment_id) in get_message(upgrade, EventKind.ROLLOUT_STARTED)
    assert get_message(upgrade, EventKind.ROLLOUT_ENDED).startswith("Success: Completed.")
    assert get_message(upgrade, EventKind.ENDED) == "Rolled out: agent service."


@transactional
def test_a_circuit_breaker_is_recorded_with_its_reason(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    platform.fault("crash", cluster=cast.acme.cluster, service=f"{cast.acme.deployment_stack}-agent-service")

    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="all", force_new_deployment=True)
    engine.run(upgrade, seconds=2)

    assert [(kind, service) for kind, service, _ in get_messages(upgrade)] == [
        ("upgrade.triggered", None),
        ("rollout.started", "agent"),
        ("rollout.rolling_back", "agent"),
        ("rollout.ended", "agent"),
        ("rollout.ended", "orchestrator"),
        ("rollout.ended", "customer-portal"),
        ("upgrade.ended", None),
    ]
    assert "circuit breaker" in get_message(upgrade, EventKind.ROLLOUT_ROLLING_BACK)
    assert get_message(upgrade, EventKind.ROLLOUT_ENDED, "agent").startswith("Failed: Rolled back by ECS.")
    assert "Not attempted" in get_message(upgrade, EventKind.ROLLOUT_ENDED, "orchestrator")


@transactional
def test_a_stop_is_recorded_once_with_its_actor(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    engine.start(upgrade)

    stop_upgrade(upgrade, actor=cast.admin)
    stop_upgrade(upgrade, actor=cast.operator)

    assert [who for kind, _, who in get_messages(upgrade) if kind == "upgrade.stop_requested"] == [cast.admin.email]


@transactional
def test_a_stall_and_its_end_are_each_recorded_once(
    cast: Cast, engine: Engine, platform: LocalAws, settings: Any
) -> None:
    settings.UPGRADE_STALL_SECONDS = 0
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    engine.start(upgrade)
    for _ in range(4):
        engine.step()
    kinds = [kind for kind, _, _ in get_messages(upgrade)]
    assert kinds.count("rollout.stalled") == 1

    settings.UPGRADE_STALL_SECONDS = 300
    engine.run(upgrade)

    kinds = [kind for kind, _, _ in get_messages(upgrade)]
    assert kinds[2:4] == ["rollout.stalled", "rollout.resumed"]
    assert (kinds.count("rollout.stalled"), kinds.count("rollout.resumed")) == (1, 1)


# --- the API -------------------------------------------------------------------------------------------------------


@transactional
def test_the_api_lists_entries_of_portal_and_ecs_together(
    cast: Cast, engine: Engine, platform: LocalAws, client_for: SignIn
) -> None:
    upgrade = engine.run(trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True))

    body = client_for(cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}/events").json()

    items = body.pop("items")
    assert body == {
        "upgrade_id": upgrade.upgrade_id,
        "upgrade_status": "SUCCESS",
        "organization": "acme",
        "total": len(items),
        "skip": 0,
        "limit": 100,
        "has_more": False,
        "kind": None,
    }
    assert {item["kind"] for item in items} == {
        *("ecs", "upgrade.triggered", "rollout.started", "rollout.ended", "upgrade.ended", "upgrade.validated"),
    }
    assert [item["created_at"] for item in items] == sorted((item["created_at"] for item in items), reverse=True)
    first = next(item for item in items if item["kind"] == "upgrade.triggered")
    assert uuid.UUID(first.pop("id"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first.pop("created_at"))
    assert first == {
        "kind": "upgrade.triggered",
        "service": None,
        "actor": cast.operator.email,
        "message": "Agent service to latest, forced.",
    }
    of_ecs = next(item for item in items if item["kind"] == "ecs")
    assert (of_ecs["service"], of_ecs["actor"]) == ("agent", "ecs")


def test_a_kind_is_filtered_and_echoed(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    make_events(upgrade, EventKind.TRIGGERED, EventKind.ENDED)

    body = client_for(cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}/events", {"kind": "upgrade.ended"}).json()

    assert ([item["kind"] for item in body["items"]], body["total"]) == (["upgrade.ended"], 1)
    assert body["kind"] == "upgrade.ended"


def test_pages_show_every_entry_once_despite_equal_times(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    make_events(upgrade, *[EventKind.CHECK_RECORDED] * 7, at=datetime(2026, 5, 1, tzinfo=UTC))
    client = client_for(cast.viewer)

    pages = [client.get(f"{UPGRADE}/{upgrade.upgrade_id}/events", {"skip": skip, "limit": 3}) for skip in (0, 3, 6)]

    seen = [item["id"] for page in pages for item in page.json()["items"]]
    whole = client.get(f"{UPGRADE}/{upgrade.upgrade_id}/events").json()["items"]
    assert seen == [item["id"] for item in whole]
    assert (len(set(seen)), [page.json()["has_more"] for page in pages]) == (7, [True, True, False])


def test_entries_of_other_upgrades_are_not_listed(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    make_events(make_upgrade(cast.acme, by=cast.operator), EventKind.ENDED)

    assert client_for(cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}/events").json()["total"] == 0


@pytest.mark.parametrize("lines", [1, 9])
def test_its_queries_do_not_grow_with_the_entries(
    cast: Cast, client_for: SignIn, django_assert_num_queries: Any, lines: int
) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, target="all")
    for rollout in upgrade.rollouts.all():
        make_events(upgrade, *[EventKind.ROLLOUT_STARTED] * lines)
        UpgradeEvent.objects.update(rollout=rollout)
    client = client_for(cast.viewer)
    client.get("/api/v1/auth/session")

    with django_assert_num_queries(SIGNED_IN_QUERIES + 1):
        client.get(f"{UPGRADE}/{upgrade.upgrade_id}/events")


@pytest.mark.parametrize("person", ["outsider", "stranger", "newcomer", "staff"])
def test_outsider_gets_404_as_for_a_random_id(cast: Cast, client_for: SignIn, person: str) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    client = client_for(getattr(cast, person))

    foreign = client.get(f"{UPGRADE}/{upgrade.upgrade_id}/events")

    assert_refused(foreign, 404, "not_found")
    assert foreign.content == client.get(f"{UPGRADE}/upgrade-2026-0101-000000-abcdef/events").content


def test_anonymous_gets_401(cast: Cast) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)

    assert_refused(Client().get(f"{UPGRADE}/{upgrade.upgrade_id}/events"), 401, "not_authenticated")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("kind=upgrade", "kind"),
        ("kind=", "kind"),
        ("limit=501", "limit"),
        ("limit=0", "limit"),
        ("skip=-1", "skip"),
        ("service=agent", "service"),
        ("kind=ecs&kind=ecs", "kind"),
    ],
)
def test_a_bad_query_is_400_and_names_the_key(cast: Cast, client_for: SignIn, query: str, named: str) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)

    response = client_for(cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}/events?{query}")

    assert list(assert_refused(response, 400, "invalid")["errors"]) == [named]


# --- the page ------------------------------------------------------------------------------------------------------


def timeline_on(page: Any) -> str:
    """Return the text of the timeline section."""
    text = html.unescape(page.content.decode())
    section = text[text.index('id="timeline"') :]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", section[: section.index("</main>")]))


def test_the_page_shows_days_who_and_what(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    make_events(upgrade, EventKind.TRIGGERED, at=datetime(2026, 4, 30, 23, 59, 30, tzinfo=UTC))
    make_events(upgrade, EventKind.ENDED, at=datetime(2026, 5, 1, 0, 4, tzinfo=UTC))
    UpgradeEvent.objects.filter(kind=EventKind.TRIGGERED).update(actor_email=cast.operator.email)

    shown = timeline_on(client_for(cast.viewer).get(f"/o/acme/upgrades/{upgrade.upgrade_id}/"))

    said = [
        "Friday, 1 May 2026",
        "00:04:00",
        "upgrade.ended happened",
        "Thursday, 30 April 2026",
        "23:59:30",
        "Triggered : upgrade.triggered happened by operator@",
    ]
    assert [shown.index(each) for each in said] == sorted(shown.index(each) for each in said)


def test_the_page_shows_one_kind_and_its_pages(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    make_events(upgrade, *[EventKind.CHECK_RECORDED] * 60, EventKind.ENDED)
    client, url = client_for(cast.viewer), f"/o/acme/upgrades/{upgrade.upgrade_id}/"

    first, second = client.get(url), client.get(url, {"kind": "check.recorded", "skip": "50"})

    assert "49 times since" in timeline_on(first)
    assert "1 to 50 of 61" in timeline_on(first)
    assert "10 times since" in timeline_on(second)
    assert "51 to 60 of 60" in timeline_on(second)
    assert "upgrade.ended happened" not in timeline_on(second)


def test_the_page_shortens_and_folds_what_ecs_says(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    for number, said in enumerate(ECS_SAYS):
        rollout = upgrade.rollouts.get()
        UpgradeEvent.objects.create(
            organization=cast.acme, rollout=rollout, kind=EventKind.ECS, ecs_event_id=str(number), message=said
        )

    shown = timeline_on(client_for(cast.viewer).get(f"/o/acme/upgrades/{upgrade.upgrade_id}/"))

    for short in ("Deployment failed: tasks failed to start", "1 task stopped", "2 tasks started 2 times since"):
        assert f"ECS , agent service: {short}" in shown
    for said in ECS_SAYS:
        assert said in shown


TARGET = "(target-group arn:aws:elasticloadbalancing:eu-central-1:111111111111:targetgroup/web/4d2246e3635cc45b)"
UNABLE, NO_INSTANCE = "was unable to place a task", "because no container instance met all of its requirements."
MATCHED = (
    "Unable to place a task because no container instance met all of its requirements. The closest matching container"
)


@pytest.mark.parametrize(
    ("said", "short"),
    [
        ("(service web) has reached a steady state.", "Reached a steady state"),
        ("(service web) has started 1 tasks: (task 0a).", "1 task started"),
        ("(service web) has started 11 tasks: (task 0a) (task 0b).", "11 tasks started"),
        (
            "(service web) has started 1 tasks: (task 0a). Amazon ECS replaced 1 tasks due to an unhealthy status.",
            "1 task started, 1 unhealthy task replaced",
        ),
        (
            "(service web) has started 1 tasks in eu-central-1a to AZ Rebalance: (task 0a).",
            "1 task started in eu-central-1a to AZ Rebalance",
        ),
        ("(service web) has stopped 1 running tasks: (task 0a).", "1 task stopped"),
        (
            "(service web) has stopped 2 running tasks in eu-central-1a due to AZ rebalancing: (task 0a) (task 0b).",
            "2 tasks stopped in eu-central-1a due to AZ rebalancing",
        ),
        ("(service web) stopped 2 pending tasks.", "2 pending tasks stopped"),
        ("(service web) has begun draining connections on 1 tasks.", "1 task draining connections"),
        (
            "(service web, taskSet ecs-svc/12) has begun draining connections on 2 tasks.",
            "2 tasks draining connections",
        ),
        (f"(service web) registered 2 targets in {TARGET}", "2 targets registered"),
        (f"(service web) deregistered 1 targets in {TARGET}", "1 target deregistered"),
        (
            f"(service web) (task 0a) (port 8080) is unhealthy in {TARGET} due to (reason Request timed out).",
            "1 task unhealthy: Request timed out",
        ),
        (
            f"(service web) (instance i-0a) (port 80) is unhealthy in {TARGET} due to (reason Health checks failed with "
            "these codes: [404])",
            "1 task unhealthy: Health checks failed with these codes: [404]",
        ),
        (
            "(service web) (instance i-0a) is unhealthy in (elb web) due to (reason Instance has failed at least the "
            "UnhealthyThreshold number of health checks consecutively.)",
            "1 task unhealthy: Instance has failed at least the UnhealthyThreshold number of health checks consecutively",
        ),
        (
            "service (web) task set (ecs-svc/823) (task 0a) is not healthy in target-group (arn:aws:x) due to TARGET "
            "GROUP IS NOT FOUND.",
            "1 task unhealthy: TARGET GROUP IS NOT FOUND",
        ),
        ("(service web) (task 0a) failed container health checks.", "Failed container health checks"),
        (
            "(service web) failed to launch a task with (error ECS was unable to assume the role 'arn:aws:iam::1:role/a'.)",
            "Failed to launch a task: ECS was unable to assume the role 'arn:aws:iam::1:role/a'",
        ),
        (
            "(service web) was unable to reach steady state because (taskSet ecs-svc/12) was unable to scale in due to "
            "(reason 2 tasks under protection)",
            "Unable to reach steady state because a task set was unable to scale in: 2 tasks under protection",
        ),
        (
            f"(service web) {UNABLE} {NO_INSTANCE} For more information, see the Troubleshooting section of the Guide.",
            "Unable to place a task because no container instance met all of its requirements",
        ),
        (
            f"(service web) {UNABLE} {NO_INSTANCE} The closest matching (container-instance 0a1b2c3d4e5f) has insufficient "
            "CPU units available.",
            f"{MATCHED} instance has insufficient CPU units available",
        ),
        (
            f"(service web) {UNABLE} {NO_INSTANCE} The closest matching container-instance 0a1b2c3d4e5f encountered error "
            '"AGENT".',
            f'{MATCHED} instance encountered error "AGENT"',
        ),
        (f"(service web) {UNABLE}. Reason: Internal error.", "Unable to place a task: Internal error"),
        (
            "(service web) is unable to consistently start tasks successfully. For more information, see the "
            "Troubleshooting section of the Amazon ECS Developer Guide.",
            "Unable to consistently start tasks successfully",
        ),
        (
            "(service web) operations are being throttled on ELB. Will try again later.",
            "Operations are being throttled on ELB. Will try again later",
        ),
        (
            "(service web) updated computedDesiredCount for (taskSet ecs-svc/12) to 0.",
            "Updated computedDesiredCount to 0",
        ),
        ("(service web) could not launch 3 tasks for deployment ecs-svc/12.", "Could not launch 3 tasks"),
        ("(service web) rolling back to deployment ecs-svc/123.", "Rolling back"),
        ("(service web) (deployment ecs-svc/1) deployment completed.", "Deployment completed"),
        (
            "(service web) (deployment ecs-svc/1) deployment failed: tasks failed to start.",
            "Deployment failed: tasks failed to start",
        ),
        (
            "(service web) is not AZ balanced with 3 tasks in a, 1 tasks in b. AZ Rebalancing in progress.",
            "Not AZ balanced with 3 tasks in a, 1 task in b. AZ Rebalancing in progress",
        ),
        ("What ECS may say one day, in (other) words.", "What ECS may say one day, in (other) words"),
        ("(service web)", "(service web)"),
    ],
)
def test_each_sentence_of_ecs_has_a_short_form(said: str, short: str) -> None:
    assert shorten_sentence(said) == short


@transactional
def test_the_end_of_a_rollback_is_not_that_of_the_rollout(
    cast: Cast, engine: Engine, platform: LocalAws, client_for: SignIn
) -> None:
    """ECS reports both as a completed deployment, and names only its id."""
    service = get_service_name(cast)
    platform.fault("crash", cluster=cast.acme.cluster, service=service)
    rolled_back = engine.run(trigger(cast))
    platform.clear_faults()
    completed = engine.run(trigger(cast))
    client = client_for(cast.viewer)

    pages = [client.get(f"/o/acme/upgrades/{each.upgrade_id}/").content.decode() for each in (rolled_back, completed)]

    assert ["Rollback completed" in page for page in pages] == [True, False]
    assert ["Deployment completed" in page for page in pages] == [False, True]


def test_what_ecs_says_folds_by_the_persons_day(cast: Cast, client_for: SignIn) -> None:
    """05:00 UTC is midnight in New York: one day in UTC is two there, and two are one."""
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    for hour in (4, 5, 6, 24, 25):
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
        make_events(upgrade, EventKind.TRIGGERED, at=at)
    client = client_for(cast.viewer)
    client.post("/account/times", {"zone": "America/New_York"})

    shown = timeline_on(client.get(f"/o/acme/upgrades/{upgrade.upgrade_id}/"))

    assert shown.count("Thursday, 1 January 2026") == shown.count("Wednesday, 31 December 2025") == 1
    assert shown.count("4 times since 00:00:00") == 1


def test_a_live_page_keeps_the_selected_kind(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator, statuses=[Status.IN_PROGRESS])
    url = f"/o/acme/upgrades/{upgrade.upgrade_id}/"

    text = client_for(cast.viewer).get(url, {"kind": "ecs"}).content.decode()

    assert f'hx-get="{url}?kind=ecs"' in text


@pytest.mark.parametrize("query", ["kind=nothing", "skip=-1", "skip=x"])
def test_an_invalid_filter_is_named_on_the_page(cast: Cast, client_for: SignIn, query: str) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)

    response = client_for(cast.viewer).get(f"/o/acme/upgrades/{upgrade.upgrade_id}/?{query}")

    assert response.status_code == 200
    assert f"{query.partition('=')[0]}: " in timeline_on(response)


def test_the_rollout_cards_show_only_ecs_events(cast: Cast, client_for: SignIn) -> None:
    upgrade = make_upgrade(cast.acme, by=cast.operator)
    make_events(upgrade, EventKind.ROLLOUT_ENDED, at=upgrade.created_at + timedelta(minutes=1))
    UpgradeEvent.objects.update(rollout=upgrade.rollouts.get())

    text = client_for(cast.viewer).get(f"/o/acme/upgrades/{upgrade.upgrade_id}/").content.decode()

    assert text.count("rollout.ended happened") == 1
