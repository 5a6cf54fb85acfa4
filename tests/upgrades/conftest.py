"""Shared by the tests of upgrades: the two doors (page and API), and rows created without the engine."""

import html
import json
import re
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db.models import F
from django.db.models.functions import Now
from django.http import HttpResponse
from django.test import Client

from portal import tenancy
from portal.models import Organization, User
from tests.conftest import Cast
from tests.local_aws import LocalAws
from tests.outside import Outside, outside
from upgrades.checks.validation import validate
from upgrades.commands.record import new_upgrade_id
from upgrades.inventory.ecs_services import service_name
from upgrades.models import Rollout, Upgrade, UpgradeCheck, ValidationRun
from upgrades.states import Outcome, Phase, Stage, Status, get_services, overall_status

UPGRADE = "/api/v1/deployments/upgrade"
UPGRADES = "/api/v1/deployments/upgrades"
VERSIONS = "/api/v1/deployments/versions"
PREFLIGHT = "/api/v1/deployments/preflight"

# Session and user, in one statement.
SIGNED_IN_QUERIES = 1

OUTCOMES = {
    Status.SUCCESS: Outcome.COMPLETED,
    Status.FAILED: Outcome.ROLLED_BACK,
    Status.SKIPPED: Outcome.DISABLED,
}
PHASES = {Status.PENDING: Phase.DUE, Status.IN_PROGRESS: Phase.WATCHING}


def push_untagged(local_aws: LocalAws) -> str:
    """Push an untagged image of the agent service and return its digest."""
    media = "application/vnd.docker"
    layer = {"mediaType": f"{media}.image.rootfs.diff.tar.gzip", "size": 1, "digest": "sha256:" + 64 * "1"}
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{media}.distribution.manifest.v2+json",
        "config": {"mediaType": f"{media}.container.image.v1+json", "size": 1, "digest": "sha256:" + 64 * "2"},
        "layers": [layer],
    }
    reply = local_aws.client("ecr").put_image(repositoryName="axonflow-agent", imageManifest=json.dumps(manifest))
    return str(reply["image"]["imageId"]["imageDigest"])


def post_json(client: Client, path: str, body: Any, **headers: str) -> Any:
    """POST a body as JSON. Underscores in header names become hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.post(path, json.dumps(body), content_type="application/json", headers=named)


def assert_refused(response: Any, status: int, code: str) -> dict[str, Any]:
    """Check the status, code and JSON shape of an error and return its body."""
    body: dict[str, Any] = response.json()
    assert (response.status_code, body["code"]) == (status, code)
    assert response.headers["Content-Type"] == "application/json"
    assert isinstance(body["detail"], str)
    assert set(body) <= {"detail", "code", "errors", "upgrade_id", "checks"}
    return body


def make_upgrade(
    organization: Organization,
    *,
    by: User,
    target: str = "agent",
    statuses: list[Status] | None = None,
    **fields: Any,
) -> Upgrade:
    """Create an upgrade in any state. `statuses` are in rolling order (default: all SUCCESS)."""
    services = get_services(target)
    statuses = statuses or [Status.SUCCESS] * len(services)
    overall = overall_status(statuses)
    ended = overall not in (Status.PENDING, Status.IN_PROGRESS)
    upgrade = Upgrade.objects.create(
        **{
            "upgrade_id": new_upgrade_id(),
            "organization": organization,
            "target": target,
            "version": "latest",
            "force_new_deployment": True,
            "initiated_by": by,
            "initiated_by_email": by.email,
            "status": overall,
            "success_count": statuses.count(Status.SUCCESS),
            "failed_count": statuses.count(Status.FAILED),
            "started_at": None if overall == Status.PENDING else Now() - timedelta(minutes=4),
            "completed_at": Now() if ended else None,
        }
        | fields
    )
    for position, (service, status) in enumerate(zip(services, statuses, strict=True)):
        done = status not in PHASES
        Rollout.objects.create(
            upgrade=upgrade,
            organization=organization,
            service=service,
            service_name=service_name(organization, service),
            position=position,
            status=status,
            outcome=OUTCOMES.get(status),
            phase=Phase.WAITING if position and status == Status.PENDING else PHASES.get(status, Phase.DONE),
            error_message="Rolled back by ECS." if status == Status.FAILED else None,
            started_at=None if status == Status.PENDING else Now() - timedelta(minutes=4),
            completed_at=Now() if done else None,
        )
    upgrade.refresh_from_db()
    return upgrade


def at_local_aws(local_aws: LocalAws, organization: Organization) -> None:
    """Set the organization's platform addresses to those of the local AWS."""
    stack = organization.deployment_stack
    organization.platform_agent_url = local_aws.platform_url(stack, "agent")
    organization.platform_orchestrator_url = local_aws.platform_url(stack, "orchestrator")
    organization.platform_portal_url = local_aws.platform_url(stack, "customer-portal")
    organization.save()


@pytest.fixture
def healthy(cast: Cast, platform: LocalAws) -> LocalAws:
    """Seed the platforms of acme and globex: steady, healthy, and with addresses."""
    at_local_aws(platform, cast.acme)
    at_local_aws(platform, cast.globex)
    return platform


@pytest.fixture
def done(cast: Cast, platform: LocalAws) -> Upgrade:
    """Return an upgrade of acme's agent service from v9.9.0 to v9.9.1."""
    return upgraded(cast, platform, "agent")


@pytest.fixture
def done_all(cast: Cast, platform: LocalAws) -> Upgrade:
    return upgraded(cast, platform, "all")


def upgraded(cast: Cast, platform: LocalAws, target: str, statuses: list[Status] | None = None) -> Upgrade:
    """Create the record of an upgrade from v9.9.0 to v9.9.1, and let ECS run the new revisions."""
    organization = cast.acme
    upgrade = make_upgrade(
        organization,
        by=cast.operator,
        target=target,
        statuses=statuses,
        cluster=organization.cluster,
        region=organization.deployment_region,
        force_new_deployment=False,
        version="v9.9.1",
    )
    for rollout in upgrade.rollouts.filter(status=Status.SUCCESS):
        earlier = running(platform, organization, rollout.service)
        later = register(platform, organization, rollout.service, "v9.9.1")
        deploy(platform, organization, rollout.service, later)
        rollout.previous_task_definition, rollout.from_version = earlier, "v9.9.0"
        rollout.task_definition, rollout.to_version = later, "v9.9.1"
        rollout.save()
    platform.advance(300)
    return upgrade


def register(platform: LocalAws, organization: Organization, service: str, version: str) -> str:
    family = f"{organization.deployment_stack}-{service}"
    definition = platform.client().describe_task_definition(taskDefinition=family)["taskDefinition"]
    containers = definition["containerDefinitions"]
    image = containers[0]["image"].rpartition(":")[0] + f":{version}"
    containers[0] = containers[0] | {"image": image, "memory": 512}
    reply = platform.client().register_task_definition(family=family, containerDefinitions=containers)
    return str(reply["taskDefinition"]["taskDefinitionArn"])


def deploy(platform: LocalAws, organization: Organization, service: str, definition: str) -> None:
    name = service_name(organization, service)
    platform.client().update_service(cluster=organization.cluster, service=name, taskDefinition=definition)


def running(platform: LocalAws, organization: Organization, service: str) -> str:
    name = service_name(organization, service)
    reply = platform.client().describe_services(cluster=organization.cluster, services=[name])
    return str(reply["services"][0]["taskDefinition"])


class Validator:
    """Plays worker and sweep of validation runs: runs steps when the test says so, and lets time pass."""

    def step(self) -> int:
        """Make every unfinished run due, run one step of each, and return how many steps ran."""
        ValidationRun.unfinished().update(next_check_at=Now(), lease_until=None)
        found = list(ValidationRun.unfinished().values_list("pk", flat=True))
        with tenancy.inside(tenancy.NOTHING):
            return sum(validate(pk) for pk in found)

    def elapse(self, seconds: float) -> None:
        """Move the times of runs and matrix rows into the past."""
        past = timedelta(seconds=seconds)
        ValidationRun.objects.update(ends_at=F("ends_at") - past, steady_since=F("steady_since") - past)
        UpgradeCheck.objects.filter(stage=Stage.VALIDATION).update(checked_at=F("checked_at") - past)

    def run(self, *, seconds: float, every: float = 20) -> None:
        """Run a step now, then one after each interval of `every` seconds, until `seconds` have passed."""
        self.step()
        for _ in range(round(seconds / every)):
            self.elapse(every)
            self.step()


@pytest.fixture
def validator(platform: LocalAws, cast: Cast) -> Validator:
    """Return a validator. Acme's platform answers at the addresses of the local AWS."""
    at_local_aws(platform, cast.acme)
    return Validator()


@pytest.fixture
def provider(cast: Cast, validator: Validator) -> Iterator[Outside]:
    """Run the test's own orchestrator, with a healthy provider whose test fails."""
    with outside() as server:
        type(cast.acme).objects.filter(pk=cast.acme.pk).update(platform_orchestrator_url=server.url)
        server.answer("/api/v1/llm-providers/status", {"providers": {"openai": {"status": "healthy"}}})
        server.answer("/api/v1/llm-providers/openai/test", {"error": {"code": "TEST_FAILED"}}, status=500)
        yield server


def matrix(upgrade: Upgrade) -> dict[str, str]:
    """Return the status of each row of the validation matrix."""
    rows = UpgradeCheck.objects.filter(upgrade=upgrade, stage=Stage.VALIDATION).order_by("position")
    return dict(rows.values_list("name", "status"))


class Door:
    """One way to the commands: API or page. `accepted` and `bad_input` are its HTTP statuses."""

    name: str
    accepted: int
    bad_input: int

    def trigger(self, client: Client, organization: Organization, *, key: str | None = None, **asked: Any) -> Any:
        raise NotImplementedError

    def stop(self, client: Client, organization: Organization, upgrade_id: str) -> Any:
        raise NotImplementedError

    def decide(self, client: Client, organization: Organization, upgrade_id: str, **body: Any) -> Any:
        """Decide at a pause. `body`: `service`, `hook_id`, `action`, `reason`."""
        raise NotImplementedError

    def rollback(
        self, client: Client, organization: Organization, upgrade_id: str, *, key: str | None = None, **asked: Any
    ) -> Any:
        raise NotImplementedError

    def status(self, client: Client, organization: Organization, upgrade_id: str) -> Any:
        raise NotImplementedError

    def history(self, client: Client, organization: Organization, **query: Any) -> Any:
        raise NotImplementedError

    def sign(self, client: Client, organization: Organization, upgrade_id: str, **body: Any) -> Any:
        """Sign a row. `body`: `check`, `status`, `note`."""
        raise NotImplementedError

    def probe_again(self, client: Client, organization: Organization, upgrade_id: str) -> Any:
        raise NotImplementedError

    def find_upgrade(self, response: HttpResponse) -> Upgrade:
        """Return the upgrade that the answer to an accepted request names."""
        upgrade_id = response.headers["Location"].rstrip("/").rpartition("/")[2]
        return Upgrade.objects.get(upgrade_id=upgrade_id)

    def get_text(self, response: HttpResponse) -> str:
        return html.unescape(response.content.decode())


class Api(Door):
    name, accepted, bad_input = "api", 202, 400

    def trigger(self, client: Client, organization: Organization, *, key: str | None = None, **asked: Any) -> Any:
        keys = {"Idempotency_Key": key} if key else {}
        return post_json(client, UPGRADE, {"service": "agent"} | asked, X_Organization=organization.slug, **keys)

    def stop(self, client: Client, organization: Organization, upgrade_id: str) -> Any:
        return client.post(f"{UPGRADE}/{upgrade_id}/stop", content_type="application/json")

    def decide(self, client: Client, organization: Organization, upgrade_id: str, **body: Any) -> Any:
        return post_json(client, f"{UPGRADE}/{upgrade_id}/continue", body)

    def rollback(
        self, client: Client, organization: Organization, upgrade_id: str, *, key: str | None = None, **asked: Any
    ) -> Any:
        keys = {"Idempotency_Key": key} if key else {}
        return post_json(client, f"{UPGRADE}/{upgrade_id}/rollback", asked, **keys)

    def status(self, client: Client, organization: Organization, upgrade_id: str) -> Any:
        return client.get(f"{UPGRADE}/{upgrade_id}")

    def history(self, client: Client, organization: Organization, **query: Any) -> Any:
        return client.get(UPGRADES, query, headers={"X-Organization": organization.slug})

    def sign(self, client: Client, organization: Organization, upgrade_id: str, **body: Any) -> Any:
        return post_json(client, f"{UPGRADE}/{upgrade_id}/validation", body)

    def probe_again(self, client: Client, organization: Organization, upgrade_id: str) -> Any:
        return client.post(f"{UPGRADE}/{upgrade_id}/validation/probe", content_type="application/json")


class Page(Door):
    name, accepted, bad_input = "page", 302, 422

    def trigger(self, client: Client, organization: Organization, *, key: str | None = None, **asked: Any) -> Any:
        forced = {"force_new_deployment": "on"} if asked.pop("force_new_deployment", False) else {}
        if forced or asked.get("service") == "all":  # the form requires it, the API does not
            asked = {"reason": "Asked for by the test."} | asked
        form = {
            "service": "agent",
            "version": "latest",
            "confirmation": organization.slug,
            "idempotency_key": key or secrets.token_hex(),
        }
        return client.post(f"/o/{organization.slug}/upgrades/new", form | forced | asked)

    def stop(self, client: Client, organization: Organization, upgrade_id: str) -> Any:
        return client.post(f"/o/{organization.slug}/upgrades/{upgrade_id}/stop")

    def decide(self, client: Client, organization: Organization, upgrade_id: str, **body: Any) -> Any:
        return client.post(f"/o/{organization.slug}/upgrades/{upgrade_id}/decide", body)

    def rollback(
        self, client: Client, organization: Organization, upgrade_id: str, *, key: str | None = None, **asked: Any
    ) -> Any:
        """Act as a person: open the page, type the slug, submit the form."""
        path = f"/o/{organization.slug}/upgrades/{upgrade_id}/rollback"
        shown = re.search(r'name="services" value="([^"]*)"', client.get(path).content.decode())
        form = {
            "services": shown[1] if shown else "agent",
            "confirmation": organization.slug,
            "idempotency_key": key or secrets.token_hex(),
        }
        return client.post(path, form | asked)

    def status(self, client: Client, organization: Organization, upgrade_id: str) -> Any:
        return client.get(f"/o/{organization.slug}/upgrades/{upgrade_id}/")

    def history(self, client: Client, organization: Organization, **query: Any) -> Any:
        return client.get(f"/o/{organization.slug}/upgrades/", query)

    def sign(self, client: Client, organization: Organization, upgrade_id: str, **body: Any) -> Any:
        check = body.pop("check")
        return client.post(f"/o/{organization.slug}/upgrades/{upgrade_id}/validation/{check}", body)

    def probe_again(self, client: Client, organization: Organization, upgrade_id: str) -> Any:
        return client.post(f"/o/{organization.slug}/upgrades/{upgrade_id}/probe")


@pytest.fixture(params=[Api(), Page()], ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    """Run the test through both doors."""
    chosen: Door = request.param
    return chosen
