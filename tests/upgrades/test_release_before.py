"""Compatibility with the previous release: both share database, broker and cache while the portal upgrades itself.

The tables of the previous release come from its migrations. It must still be able to write its rows, and this release
must finish what it left half done.
"""

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.migrations.loader import MigrationLoader
from django.db.models.functions import Now

from portal import soft_cache
from portal.celery import app
from tests.conftest import Cast, Engine
from tests.local_aws import LocalAws
from upgrades.commands.record import new_upgrade_id
from upgrades.commands.trigger import trigger_upgrade
from upgrades.inventory.ecs_services import service_name
from upgrades.inventory.running import read_running_services
from upgrades.models import Rollout, Upgrade
from upgrades.states import Outcome, Phase, Status

# The newest migrations of the previous release. Update them with each release.
RELEASE_BEFORE = [("portal", "0006_deployments"), ("upgrades", "0001_initial"), ("deployments", "0002_counts")]
# The tasks that its processes dispatch, with the number of ids in a message.
MESSAGES = {
    "portal.tasks.worker_beat": 0,
    "upgrades.tasks.advance_rollout": 1,
    "deployments.tasks.reconcile": 2,
}


@pytest.fixture(scope="module")
def models_before() -> Any:
    """Return the models of the previous release: `models_before.get_model("upgrades", "Upgrade")`."""
    return MigrationLoader(None).project_state(RELEASE_BEFORE).apps


def trigger_before(models_before: Any, cast: Cast) -> Upgrade:
    """Write the rows that the previous release writes for a trigger, with only its columns."""
    made = models_before.get_model("upgrades", "Upgrade").objects.create(
        upgrade_id=new_upgrade_id(),
        organization_id=cast.acme.pk,
        target="agent",
        version="latest",
        force_new_deployment=True,
        initiated_by_id=cast.operator.pk,
        initiated_by_email=cast.operator.email,
        cluster=cast.acme.cluster,
        region=cast.acme.deployment_region,
    )
    models_before.get_model("upgrades", "Rollout").objects.create(
        upgrade=made,
        organization_id=cast.acme.pk,
        service="agent",
        service_name=service_name(cast.acme, "agent"),
        position=0,
        phase=Phase.DUE,
        next_check_at=Now(),
        deadline_at=Now() + timedelta(minutes=45),
    )
    return Upgrade.objects.get(pk=made.pk)


def test_an_upgrade_of_the_previous_release_is_carried_out(
    models_before: Any, cast: Cast, engine: Engine, platform: LocalAws
) -> None:
    upgrade = trigger_before(models_before, cast)

    engine.run(upgrade)

    assert (upgrade.status, upgrade.rollouts.get().outcome) == (Status.SUCCESS, Outcome.COMPLETED)
    assert len(platform.ledger(action="UpdateService", cluster=cast.acme.cluster, effect=True)) == 1


def test_the_previous_release_can_write_its_rows(models_before: Any, cast: Cast, platform: LocalAws) -> None:
    upgrade = trigger_before(models_before, cast)
    events = models_before.get_model("upgrades", "RolloutEvent").objects

    events.create(
        organization_id=cast.acme.pk,
        rollout_id=upgrade.rollouts.get().pk,
        ecs_event_id="e-1",
        message="(service agent) has reached a steady state.",
        created_at=Now(),
    )
    models_before.get_model("portal", "Organization").objects.create(slug="umbrella", name="Umbrella")

    assert upgrade.rollouts.get().events.get().kind == "ecs"


def test_the_previous_release_can_read_new_rows(models_before: Any, cast: Cast, platform: LocalAws) -> None:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="all", force_new_deployment=True)

    for app_label, name in (("upgrades", "Upgrade"), ("upgrades", "Rollout"), ("upgrades", "RolloutEvent")):
        list(models_before.get_model(app_label, name).objects.all())
    due = models_before.get_model("upgrades", "Rollout").objects.filter(upgrade_id=upgrade.pk, phase=Phase.DUE)

    assert due.count() == 1


def test_a_rollout_watched_by_the_previous_release_continues(cast: Cast, engine: Engine, platform: LocalAws) -> None:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    rollout = engine.start(upgrade)
    left_empty = {name: Rollout._meta.get_field(name).get_default() for name in columns_since(Rollout)}
    Rollout.objects.filter(pk=rollout.pk).update(**left_empty)

    engine.run(upgrade)

    assert (upgrade.status, upgrade.rollouts.get().outcome) == (Status.SUCCESS, Outcome.COMPLETED)


@pytest.mark.parametrize(
    "written",
    [
        {"phase": Phase.DONE, "status": Status.SUCCESS, "outcome": Outcome.NO_CHANGE},
        {"phase": Phase.CALLING, "attempts": 1},
    ],
    ids=["nothing to change", "about to call"],
)
@pytest.mark.parametrize("wanted", ["wanted_image", "wanted_task_definition"])
def test_the_previous_release_cannot_end_newer_rollouts(
    models_before: Any, cast: Cast, platform: LocalAws, wanted: str, written: dict[str, Any]
) -> None:
    """Its engine ignores the version or the rollback. The database refuses its write, and it releases the row."""
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    upgrade.rollouts.update(wanted_image=None, wanted_task_definition=None)
    upgrade.rollouts.update(**{wanted: "whatever:2"})
    rows = models_before.get_model("upgrades", "Rollout").objects.filter(upgrade_id=upgrade.pk)

    with pytest.raises(IntegrityError, match="rollout_does_what_is_wanted"), transaction.atomic():
        rows.update(**written, task_definition="arn:aws:ecs:::task-definition/acme-agent:1")


def test_the_releases_share_cached_task_definitions(cast: Cast, platform: LocalAws) -> None:
    """An entry of another release in the shared cache, in another shape, does no harm."""
    row = read_running_services(cast.acme).services[0]  # type: ignore[union-attr] # never None here
    key = f"task-definition:{row.task_definition}"
    assert set(soft_cache.read(key)) == {"arn", "family", "revision", "images"}

    soft_cache.write(key, {"arn": row.task_definition, "of_a_later_release": True}, seconds=60)

    reading = read_running_services(cast.acme, fresh_seconds=0)
    assert reading
    assert (reading.error, reading.services[0].version) == (None, "v9.9.0")


def columns_since(model: type[Rollout]) -> set[str]:
    """Return the model's fields that the previous release does not have."""
    state = MigrationLoader(None).project_state(RELEASE_BEFORE).apps
    before = {field.name for field in state.get_model("upgrades", model.__name__)._meta.get_fields()}
    return {field.name for field in model._meta.concrete_fields} - before


def test_no_column_of_the_previous_release_is_removed(models_before: Any, db: None) -> None:
    with connection.cursor() as cursor:
        for model in models_before.get_models():
            if model._meta.app_label in ("portal", "upgrades", "deployments"):
                table = connection.introspection.get_table_description(cursor, model._meta.db_table)
                missing = {field.column for field in model._meta.local_concrete_fields} - {row.name for row in table}
                assert missing == set(), model._meta.label


def test_messages_of_the_previous_release_are_understood() -> None:
    app.loader.import_default_modules()

    for name, ids in MESSAGES.items():
        assert app.tasks[name].run.__code__.co_argcount == ids
