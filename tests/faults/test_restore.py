"""A backup taken between the 202 and the call, restored after the call: nothing is deployed twice."""

import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models import F

from deployments.commands import create_deployment
from deployments.models import Deployment
from portal.local import embedded
from tests.conftest import Cast, Engine
from tests.deployments.conftest import Runtime, make_agent
from tests.figures import print_line
from tests.local_aws import LocalAws
from upgrades.commands.trigger import trigger_upgrade
from upgrades.engine.restored import MARKED, NOTE
from upgrades.models import Rollout, Upgrade
from upgrades.states import Outcome, Status

pytestmark = pytest.mark.django_db(transaction=True)


def run_tool(name: str, database: str, *options: str) -> None:
    """Run a tool of PostgreSQL as the superuser: the application's role sees no rows without a context."""
    url = f"postgresql://postgres:@/{database}?host={connection.settings_dict['OPTIONS']['host']}"
    subprocess.run([str(embedded.binaries() / name), "-d", url, *options], check=True)


class Backup:
    """A dump of the test's database, and the database into which it is restored."""

    def __init__(self, local_aws: LocalAws, dump: Path) -> None:
        self.local_aws, self.dump = local_aws, str(dump)
        self.name = str(connection.settings_dict["NAME"])
        self.restored = f"{self.name}_restored"
        self.taken_at = 0.0

    def take(self) -> None:
        self.taken_at = self.local_aws.now()
        run_tool("pg_dump", self.name, "--format=custom", "--file", self.dump)

    def restore(self) -> None:
        """Restore, use the restored database, and let as much time pass in it as in AWS."""
        run_tool("psql", self.name, "-qc", f"CREATE DATABASE {self.restored}")
        run_tool("pg_restore", self.restored, self.dump)
        self.use(self.restored)
        passed = timedelta(seconds=self.local_aws.now() - self.taken_at)
        Upgrade.objects.update(created_at=F("created_at") - passed)

    def use(self, name: str) -> None:
        connection.close()
        connection.settings_dict["NAME"] = name


@pytest.fixture
def backup(platform: LocalAws, tmp_path: Path) -> Iterator[Backup]:
    backup = Backup(platform, tmp_path / "portal.dump")
    yield backup
    backup.use(backup.name)
    run_tool("psql", backup.name, "-qc", f"DROP DATABASE IF EXISTS {backup.restored} WITH (FORCE)")


def trigger(cast: Cast, **fields: Any) -> Upgrade:
    return trigger_upgrade(
        cast.acme, actor=cast.operator, **{"service": "agent", "force_new_deployment": True} | fields
    )


def count_deployments(local_aws: LocalAws, cast: Cast) -> int:
    calls = local_aws.ledger(action="UpdateService", cluster=cast.acme.cluster, effect=True)
    return len([call for call in calls if call["deployment_id"]])


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("proceed", [Engine.start, Engine.run], ids=["rolling", "ended"])
@pytest.mark.parametrize(
    "fields",
    [{"service": "all"}, {"version": "v9.9.1"}, {"version": "v9.9.1", "force_new_deployment": False}],
    ids=["all", "version", "version-unforced"],
)
def test_a_call_after_the_backup_is_not_made_again(
    request: pytest.FixtureRequest,
    cast: Cast,
    engine: Engine,
    platform: LocalAws,
    backup: Backup,
    fields: dict[str, Any],
    proceed: Callable[[Engine, Upgrade], Any],
) -> None:
    upgrade = trigger(cast, **fields)
    backup.take()
    proceed(engine, upgrade)
    backup.restore()

    assert engine.run(upgrade).status == Status.SUCCESS

    made, rollouts = count_deployments(platform, cast), upgrade.rollouts.count()
    print_line(request, f"restored backup ({request.node.callspec.id}): rollouts {rollouts}, doubled {made - rollouts}")
    assert made == rollouts
    rollout = upgrade.rollouts.first()
    assert rollout
    assert (rollout.outcome, rollout.attribution_note) == (Outcome.COMPLETED, NOTE)


def test_a_restored_upgrade_that_was_not_called_is_called_once(
    cast: Cast, engine: Engine, platform: LocalAws, backup: Backup
) -> None:
    upgrade = trigger(cast)
    backup.take()
    platform.advance(60)
    backup.restore()

    assert engine.run(upgrade).status == Status.SUCCESS

    assert count_deployments(platform, cast) == 1
    assert upgrade.rollouts.get().attribution_note is None


@pytest.mark.usefixtures("registry")
def test_a_restored_upgrade_does_not_undo_a_later_deployment(
    cast: Cast, engine: Engine, platform: LocalAws, backup: Backup
) -> None:
    upgrade = trigger(cast, version="v9.8.0")
    backup.take()
    family = f"{cast.acme.deployment_stack}-agent"
    ecs = platform.client()
    content = ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]["containerDefinitions"]
    image = content[0]["image"].replace(":v9.9.0", ":v9.9.1")
    ecs.register_task_definition(family=family, containerDefinitions=[content[0] | {"image": image, "memory": 512}])
    ecs.update_service(cluster=str(cast.acme.cluster), service=f"{family}-service", taskDefinition=family)
    platform.advance(60)
    backup.restore()

    assert engine.run(upgrade).status == Status.FAILED

    assert upgrade.rollouts.get().outcome == Outcome.SUPERSEDED
    assert count_deployments(platform, cast) == 1  # theirs


def test_a_marked_upgrade_is_searched_for_before_it_is_called(
    cast: Cast, engine: Engine, platform: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    upgrade = trigger(cast)
    row = Rollout.objects.filter(upgrade=upgrade).values().get()
    engine.start(upgrade)
    Rollout.objects.filter(upgrade=upgrade).update(**row)  # as a disk that was put back has it

    call_command("mark_restored")

    assert capsys.readouterr().out.startswith("1 open rollouts")
    assert upgrade.rollouts.get().database == MARKED
    assert engine.run(upgrade).status == Status.SUCCESS
    assert count_deployments(platform, cast) == 1


def test_an_agents_service_is_not_created_again(
    request: pytest.FixtureRequest, cast: Cast, platform: LocalAws, backup: Backup
) -> None:
    runtime = Runtime(platform)
    deployment = create_deployment(make_agent(cast), actor=cast.operator, replicas=2)
    backup.take()
    runtime.run(deployment, "ready")
    (service,) = platform.ledger(action="CreateService", effect=True)
    backup.restore()

    runtime.run(Deployment.objects.get(), "ready")

    created = platform.ledger(action="CreateService", effect=True)
    print_line(request, f"restored backup (an agent's deployment): services 1, doubled {len(created) - 1}")
    assert created == [service]
    assert [call for call in platform.ledger(action="UpdateService", effect=True) if call["deployment_id"]] == []
