"""Pre-flight: what it finds, what it blocks through page and API, and what an override records."""

from collections.abc import Callable
from datetime import timedelta
from unittest.mock import ANY

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from portal.accounts.sessions import ENDS_AT
from portal.errors import PortalError
from portal.models import AuditEvent, Organization, User
from tests.conftest import Cast, Engine, audited_changes, get_session, seed_platform
from tests.local_aws import LocalAws
from tests.upgrades.conftest import PREFLIGHT, UPGRADE, Door, assert_refused, make_upgrade, post_json, upgraded
from tests.upgrades.preflight_checks import ask, get_agent, written
from upgrades.commands.rollback import rollback_upgrade
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Rollout, UpgradeEvent
from upgrades.states import CheckStatus, Outcome, PreflightCheck, Stage, Status

SignIn = Callable[[User], Client]
REASON = "the vendor asked for it"
PROBES = ["agent_health", "orchestrator_health", "connectors", "providers"]


# --- what it finds -------------------------------------------------------------------------------------------------


def test_a_healthy_platform_passes_every_testable_check(cast: Cast, healthy: LocalAws, client_for: SignIn) -> None:
    body = client_for(cast.viewer).get(PREFLIGHT, {"service": "agent"}).json()

    assert (body["organization"], body["service"], body["may_start"]) == ("acme", "agent", True)
    assert [check["check"] for check in body["checks"]] == PreflightCheck.values
    found = {check["check"]: check["status"] for check in body["checks"]}
    assert found == dict.fromkeys(PreflightCheck.values, "pass") | {"permission": "unknown"}
    for check in body["checks"]:
        assert set(check) == {"check", "title", "status", "detail", "evidence", "checked_at"}
        assert check["detail"].endswith(".")
        assert check["checked_at"].endswith("Z")


def test_the_evidence_names_what_was_found(cast: Cast, healthy: LocalAws, client_for: SignIn) -> None:
    checks = ask(client_for(cast.viewer))

    assert checks["environment"]["evidence"] == {
        "organization": "acme",
        "environment": "production",
        "region": "eu-central-1",
        "cluster": cast.acme.cluster,
        "stack": cast.acme.deployment_stack,
    }
    assert checks["steady"]["evidence"]["orchestrator"] == {"state": "steady", "running": 3, "desired": 3}
    assert checks["circuit_breaker"]["title"] == "Failure detection"
    assert checks["circuit_breaker"]["evidence"]["agent"] == {
        "strategy": "ROLLING",
        "enabled": True,
        "rolls_back": True,
        "alarms": [],
        "alarms_roll_back": False,
        "hooks": [],
        "bake_minutes": 0,
    }
    assert len(checks["cluster_and_services"]["evidence"]["services"]) == 3
    assert checks["session"]["evidence"]["needed_seconds"] == 2700
    assert checks["agent_health"]["evidence"]["status"] == "healthy"
    assert checks["providers"]["evidence"]["url"].endswith("/orchestrator/api/v1/llm-providers/status")


def test_without_a_service_it_is_for_all(cast: Cast, healthy: LocalAws, client_for: SignIn) -> None:
    assert len(ask(client_for(cast.viewer))["steady"]["evidence"]) == 3
    assert list(ask(client_for(cast.viewer), service="agent")["steady"]["evidence"]) == ["agent"]


def test_without_addresses_platform_health_is_unknown(cast: Cast, platform: LocalAws, client_for: SignIn) -> None:
    checks = ask(client_for(cast.viewer))

    assert [checks[name]["status"] for name in PROBES] == ["unknown"] * 4
    assert "Staff can set it in the admin" in checks["agent_health"]["detail"]


def test_an_organization_that_is_not_set_up_fails(cast: Cast, local_aws: LocalAws, client_for: SignIn) -> None:
    checks = ask(client_for(cast.newcomer))

    assert checks["environment"]["status"] == "fail"
    assert "neither cluster nor stack" in checks["environment"]["detail"]
    assert checks["steady"]["status"] == "unknown"
    Organization.objects.filter(pk=cast.initech.pk).update(deployment_cluster="somewhere")
    assert "no stack" in ask(client_for(cast.newcomer))["environment"]["detail"]


def degraded(cast: Cast, platform: LocalAws) -> None:
    seed_platform(platform, cast.acme)
    platform.client().update_service(cluster=cast.acme.cluster, service=get_agent(cast), desiredCount=9)


def rolling(cast: Cast, platform: LocalAws) -> None:
    platform.client().update_service(cluster=cast.acme.cluster, service=get_agent(cast), forceNewDeployment=True)
    platform.advance(1)


def left_failed(cast: Cast, platform: LocalAws) -> None:
    """Let a new deployment crash without a rollback by ECS."""
    breaker = {"enable": True, "rollback": False}
    platform.fault("crash", cluster=cast.acme.cluster, service=get_agent(cast))
    platform.client().update_service(
        cluster=cast.acme.cluster,
        service=get_agent(cast),
        deploymentConfiguration={"deploymentCircuitBreaker": breaker},
        forceNewDeployment=True,
    )
    platform.advance(600)


def missing(cast: Cast, platform: LocalAws) -> None:
    platform.client().delete_service(cluster=cast.acme.cluster, service=get_agent(cast), force=True)
    platform.advance(600)


def no_cluster(cast: Cast, platform: LocalAws) -> None:
    Organization.objects.filter(pk=cast.acme.pk).update(deployment_cluster="gone")


def unreadable(cast: Cast, platform: LocalAws) -> None:
    platform.fault("access_denied", action="DescribeServices", account="111111111111")


def breaker_off(cast: Cast, platform: LocalAws) -> None:
    breaker = {"enable": False, "rollback": False}
    platform.client().update_service(
        cluster=cast.acme.cluster,
        service=get_agent(cast),
        deploymentConfiguration={"deploymentCircuitBreaker": breaker},
    )


def part(name: str, status: str) -> Callable[[Cast, LocalAws], None]:
    def switch(cast: Cast, platform: LocalAws) -> None:
        platform.set_platform(cast.acme.deployment_stack, name, status)

    return switch


FAILING: dict[str, tuple[Callable[[Cast, LocalAws], None], set[str], str]] = {
    "too few tasks": (degraded, {"steady"}, "Agent service"),
    "rolling": (rolling, {"steady"}, "Agent service is rolling"),
    "left failed": (left_failed, {"steady"}, "Agent service has a failed deployment (4 of 4)"),
    "missing": (missing, {"cluster_and_services", "steady", "agent_health", "connectors"}, "Not in the cluster"),
    "no cluster": (no_cluster, {"cluster_and_services"}, "ClusterNotFoundException"),
    "unreadable": (unreadable, {"cluster_and_services"}, "AccessDeniedException"),
    "breaker off": (breaker_off, {"circuit_breaker"}, "Off for: Agent service"),
    "agent starts": (part("agent", "starting"), {"agent_health", "connectors"}, "says `starting`"),
    "agent down": (part("agent", "down"), {"agent_health", "connectors"}, "HTTP 503"),
    "no router": (part("component/llm_router", "unhealthy"), {"orchestrator_health"}, "llm_router"),
    "a connector": (part("connector/slack", "unhealthy"), {"connectors"}, "1 of 3 connectors"),
    "a provider": (part("provider/openai", "unhealthy"), {"providers"}, "openai (unhealthy)"),
}


@pytest.mark.parametrize("kind", FAILING)
def test_a_failed_check_blocks_page_and_api(
    cast: Cast, healthy: LocalAws, client_for: SignIn, door: Door, kind: str
) -> None:
    breaks, failed, sentence = FAILING[kind]
    breaks(cast, healthy)
    before = written()

    response = door.trigger(client_for(cast.operator), cast.acme)

    assert response.status_code == 409
    assert sentence in door.get_text(response)
    assert "give a reason to start anyway" in door.get_text(response)
    if door.name == "api":
        assert set(assert_refused(response, 409, "preflight_failed")["checks"]) == failed
    assert written() == before
    assert healthy.ledger(cluster=cast.acme.cluster, action="RegisterTaskDefinition") == []


@pytest.mark.parametrize("kind", ["rolling", "agent starts"])
def test_an_override_starts_the_upgrade_anyway(
    cast: Cast, healthy: LocalAws, client_for: SignIn, door: Door, kind: str
) -> None:
    breaks, failed, sentence = FAILING[kind]
    breaks(cast, healthy)

    response = door.trigger(client_for(cast.operator), cast.acme, override_reason=REASON)

    assert response.status_code == door.accepted
    upgrade = door.find_upgrade(response)
    assert upgrade.override_reason == REASON
    recorded = upgrade.checks.filter(stage=Stage.PREFLIGHT)
    assert [check.name for check in recorded] == PreflightCheck.values
    assert {check.name for check in recorded if check.status == CheckStatus.FAIL} == failed
    assert sentence in " ".join(check.detail for check in recorded)
    data = audited_changes().get().data
    assert (data["override_reason"], set(data["failed_checks"])) == (REASON, failed)
    assert f"{REASON}" in UpgradeEvent.objects.get(upgrade=upgrade, kind="upgrade.triggered").message


def test_the_checks_are_recorded_and_shown(cast: Cast, healthy: LocalAws, client_for: SignIn, door: Door) -> None:
    upgrade = door.find_upgrade(door.trigger(client_for(cast.operator), cast.acme))

    assert upgrade.override_reason == ""
    assert [check.status for check in upgrade.checks.all()].count(CheckStatus.PASS) == 9
    assert all(check.checked_at and check.checked_by is None for check in upgrade.checks.all())
    record = client_for(cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}").json()
    assert record["override_reason"] is None
    assert [check["check"] for check in record["checks"]] == PreflightCheck.values
    assert record["checks"][3] | {"checked_at": ""} == {
        "stage": "preflight",
        "check": "steady",
        "title": "Services run steadily",
        "status": "pass",
        "detail": "Steady: Agent service (4 of 4).",
        "evidence": {"agent": {"state": "steady", "running": 4, "desired": 4}},
        "checked_by": None,
        "note": None,
        "checked_at": "",
    }
    page = " ".join(client_for(cast.viewer).get(f"/o/acme/upgrades/{upgrade.upgrade_id}/").content.decode().split())
    assert "Pre-flight at the start" in page
    assert "1 not known, 9 passed" in page
    assert "Started despite failed checks" not in page


def test_an_override_is_shown(cast: Cast, healthy: LocalAws, client_for: SignIn) -> None:
    part("connector/slack", "unhealthy")(cast, healthy)
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", override_reason="<b>urgent</b> fix")

    page = " ".join(client_for(cast.viewer).get(f"/o/acme/upgrades/{upgrade.upgrade_id}/").content.decode().split())
    record = client_for(cast.viewer).get(f"{UPGRADE}/{upgrade.upgrade_id}").json()

    assert "Started despite failed checks" in page
    assert "&lt;b&gt;urgent&lt;/b&gt; fix" in page
    assert "1 failed, 2 not known, 7 passed" in page
    assert record["override_reason"] == "<b>urgent</b> fix"


def test_an_override_without_a_failure_is_not_recorded(
    cast: Cast, healthy: LocalAws, client_for: SignIn, door: Door
) -> None:
    upgrade = door.find_upgrade(door.trigger(client_for(cast.operator), cast.acme, override_reason=REASON))

    assert upgrade.override_reason == ""
    assert "failed_checks" not in audited_changes().get().data


def test_a_disabled_service_is_not_checked_for_steadiness(
    cast: Cast, local_aws: LocalAws, client_for: SignIn, door: Door
) -> None:
    seed_platform(local_aws, cast.acme, orchestrator=0)

    upgrade = door.find_upgrade(door.trigger(client_for(cast.operator), cast.acme, service="all"))

    steady = upgrade.checks.get(name="steady")
    assert steady.status == CheckStatus.PASS
    assert steady.detail.endswith("Nothing runs, for the desired count is 0: Orchestrator.")


def test_only_targeted_services_must_be_steady(cast: Cast, healthy: LocalAws, client_for: SignIn) -> None:
    rolling(cast, healthy)
    client = client_for(cast.viewer)

    assert ask(client, service="orchestrator")["steady"]["status"] == "pass"
    assert ask(client, service="all")["steady"]["status"] == "fail"


def test_a_breaker_without_rollback_passes_and_says_so(cast: Cast, healthy: LocalAws, client_for: SignIn) -> None:
    breaker = {"deploymentCircuitBreaker": {"enable": True, "rollback": False}}
    healthy.client().update_service(cluster=cast.acme.cluster, service=get_agent(cast), deploymentConfiguration=breaker)

    check = ask(client_for(cast.viewer))["circuit_breaker"]

    assert check["status"] == "pass"
    assert "On for Agent service (ROLLING: circuit breaker without automatic rollback)." in check["detail"]


# --- unknown checks do not block -----------------------------------------------------------------------------------


def test_checks_are_unknown_if_ecs_does_not_answer(
    cast: Cast, healthy: LocalAws, client_for: SignIn, door: Door
) -> None:
    healthy.fault("server_error", action="*", account="111111111111")

    response = door.trigger(client_for(cast.operator), cast.acme)

    assert response.status_code == door.accepted
    found = dict(door.find_upgrade(response).checks.values_list("name", "status"))
    assert {found[name] for name in ("cluster_and_services", "steady", "circuit_breaker")} == {"unknown"}


def test_permission_is_never_a_pass(cast: Cast, healthy: LocalAws, engine: Engine, client_for: SignIn) -> None:
    client = client_for(cast.operator)
    assert "there has not been one yet" in ask(client, service="agent")["permission"]["detail"]

    upgrade = engine.run(trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True))
    had = ask(client, service="agent")["permission"]
    Rollout.objects.filter(upgrade=upgrade).update(deployment_id=None)
    assert ask(client, service="agent")["permission"] == had | {"checked_at": ANY}  # its ARN is enough
    make_upgrade(cast.acme, by=cast.operator, statuses=[Status.FAILED])
    Rollout.objects.filter(upgrade__status=Status.FAILED).update(outcome=Outcome.ACCESS_DENIED)
    denied = ask(client, service="agent")["permission"]

    assert (had["status"], denied["status"]) == ("unknown", "unknown")
    assert f"{upgrade.upgrade_id}, could update the agent service" in had["detail"]
    assert had["evidence"]["outcome"] == "completed"
    assert "was denied permission to update the agent service" in denied["detail"]
    assert "there has not been one yet" in ask(client, service="orchestrator")["permission"]["detail"]


# --- the session ---------------------------------------------------------------------------------------------------


def let_session_end_in(client: Client, **left: float) -> None:
    session = get_session(client)
    session[ENDS_AT] = (timezone.now() + timedelta(**left)).timestamp()
    session.save()


def test_a_session_that_ends_before_the_deadline_fails(
    cast: Cast, healthy: LocalAws, client_for: SignIn, door: Door
) -> None:
    client = client_for(cast.operator)
    let_session_end_in(client, minutes=44)

    response = door.trigger(client, cast.acme)

    assert response.status_code == 409
    assert "Your session ends in 43 minutes, but a rollout may take 45. Sign in again first." in door.get_text(response)
    let_session_end_in(client, minutes=46)
    assert door.trigger(client, cast.acme).status_code == door.accepted


def test_without_a_session_the_check_is_unknown(cast: Cast, healthy: LocalAws) -> None:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent")

    assert upgrade.checks.get(name="session").status == CheckStatus.UNKNOWN


# --- rollbacks run the same checks ---------------------------------------------------------------------------------


def test_a_rollback_is_blocked_and_can_be_overridden(
    cast: Cast, healthy: LocalAws, engine: Engine, client_for: SignIn, door: Door
) -> None:
    done = upgraded(cast, healthy, "agent")
    part("connector/slack", "unhealthy")(cast, healthy)
    client = client_for(cast.operator)
    before = written()

    refused = door.rollback(client, cast.acme, done.upgrade_id)
    assert refused.status_code == 409
    assert "1 of 3 connectors are not healthy" in door.get_text(refused)
    assert written() == before

    made = door.rollback(client, cast.acme, done.upgrade_id, override_reason=REASON)
    assert made.status_code == door.accepted
    rollback = door.find_upgrade(made)
    assert (rollback.rolls_back, rollback.override_reason) == (done, REASON)
    assert rollback.checks.get(name="connectors").status == CheckStatus.FAIL
    assert AuditEvent.objects.latest("id").data["failed_checks"] == ["connectors"]


# --- who may not, bad input ----------------------------------------------------------------------------------------


def test_outsider_gets_404(cast: Cast, healthy: LocalAws, client_for: SignIn) -> None:
    for person in (cast.outsider, cast.stranger, cast.staff):
        response = client_for(person).get(PREFLIGHT, headers={"X-Organization": "acme"})
        assert_refused(response, 404, "not_found")


def test_anonymous_gets_401(cast: Cast) -> None:
    assert_refused(Client().get(PREFLIGHT), 401, "not_authenticated")


def test_an_override_does_not_replace_the_role(cast: Cast, healthy: LocalAws, client_for: SignIn, door: Door) -> None:
    part("agent", "starting")(cast, healthy)
    before = written()

    assert door.trigger(client_for(cast.viewer), cast.acme, override_reason=REASON).status_code == 403
    assert door.trigger(client_for(cast.outsider), cast.acme, override_reason=REASON).status_code == 404
    assert written() == before


@pytest.mark.parametrize("query", [{"service": "database"}, {"service": ""}, {"services": "agent"}, {"q": "x"}])
def test_bad_queries_are_refused(cast: Cast, client_for: SignIn, query: dict[str, str]) -> None:
    assert_refused(client_for(cast.viewer).get(PREFLIGHT, query), 400, "invalid")


@pytest.mark.parametrize("reason", ["x", "ok", "!!!!!!!!!!", " a b c d ", "....1234"])
def test_an_empty_override_reason_is_refused(
    cast: Cast, healthy: LocalAws, client_for: SignIn, door: Door, reason: str
) -> None:
    part("agent", "starting")(cast, healthy)
    before = written()

    response = door.trigger(client_for(cast.operator), cast.acme, override_reason=reason)

    assert response.status_code == 400
    assert "needs at least 5 letters or digits" in door.get_text(response)
    assert written() == before


def test_an_override_of_the_wrong_shape_is_refused(
    cast: Cast, healthy: LocalAws, client_for: SignIn, door: Door
) -> None:
    for reason in ("x" * 2001, "a\x00bcdef"):
        response = door.trigger(client_for(cast.operator), cast.acme, override_reason=reason)
        assert response.status_code == door.bad_input
    for body in ({"override_reason": 12345}, {"override_reason": None}, {"override_reason": ["because of it"]}):
        assert_refused(post_json(client_for(cast.operator), UPGRADE, {"service": "agent"} | body), 400, "invalid")


# --- keys ----------------------------------------------------------------------------------------------------------


def test_a_repeated_request_is_not_checked_again(cast: Cast, healthy: LocalAws, client_for: SignIn, door: Door) -> None:
    client = client_for(cast.operator)
    first = door.find_upgrade(door.trigger(client, cast.acme, key="once"))
    part("agent", "down")(cast, healthy)
    cache.clear()

    again = door.trigger(client, cast.acme, key="once")

    assert (again.status_code, door.find_upgrade(again)) == (door.accepted, first)


def test_another_override_is_another_request(cast: Cast, healthy: LocalAws, client_for: SignIn, door: Door) -> None:
    client = client_for(cast.operator)
    door.trigger(client, cast.acme, key="once")

    assert door.trigger(client, cast.acme, key="once", override_reason=REASON).status_code == 422


# --- time ----------------------------------------------------------------------------------------------------------


def test_the_rollback_command_refuses_a_failed_check(cast: Cast, healthy: LocalAws) -> None:
    done = upgraded(cast, healthy, "agent")
    part("agent", "starting")(cast, healthy)

    with pytest.raises(PortalError) as refused:
        rollback_upgrade(done, actor=cast.operator)

    assert (refused.value.status, refused.value.code) == (409, "preflight_failed")
    assert refused.value.extra == {"checks": ["agent_health", "connectors"]}
