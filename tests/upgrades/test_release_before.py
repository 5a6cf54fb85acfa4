"""While the portal upgrades itself, this release and the one before it share the database, the broker and the cache.

The tables of the release before are taken from its migrations: what it wrote must still be possible to write, and what it
left half done must be carried on.
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
from upgrades.inventory.running import read_platform, service_name
from upgrades.models import Rollout, Upgrade
from upgrades.states import Outcome, Phase, Status

# The newest migrations of the release before this one. Move them on with each release.
RELEASE_BEFORE = [("portal", "0006_deployments"), ("upgrades", "0001_initial"), ("deployments", "0002_counts")]
# What its processes ring with, and with how many ids.
MESSAGES = {
    "portal.tasks.worker_beat": 0,
    "upgrades.tasks.advance_rollout": 1,
    "deployments.tasks.reconcile": 2,
}


@pytest.fixture(scope="module")
def models_before() -> Any:
    """The models as the release before knows them: `models_before.get_model("upgrades", "Upgrade")`."""
    return MigrationLoader(None).project_state(RELEASE_BEFORE).apps


def trigger_before(models_before: Any, cast: Cast) -> Upgrade:
    """The rows that the release before writes for a trigger, with its columns alone."""
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


def test_an_upgrade_that_the_release_before_recorded_is_carried_out(
    models_before: Any, cast: Cast, engine: Engine, platform: LocalAws
) -> None:
    upgrade = trigger_before(models_before, cast)

    engine.run(upgrade)

    assert (upgrade.status, upgrade.rollouts.get().outcome) == (Status.SUCCESS, Outcome.COMPLETED)
    assert len(platform.ledger(action="UpdateService", cluster=cast.acme.cluster, effect=True)) == 1


def test_the_release_before_writes_events_and_organizations(models_before: Any, cast: Cast, platform: LocalAws) -> None:
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


def test_the_release_before_reads_what_this_one_writes(models_before: Any, cast: Cast, platform: LocalAws) -> None:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="all", force_new_deployment=True)

    for app_label, name in (("upgrades", "Upgrade"), ("upgrades", "Rollout"), ("upgrades", "RolloutEvent")):
        list(models_before.get_model(app_label, name).objects.all())
    due = models_before.get_model("upgrades", "Rollout").objects.filter(upgrade_id=upgrade.pk, phase=Phase.DUE)

    assert due.count() == 1


def test_a_rollout_that_the_release_before_watched_is_watched_on(
    cast: Cast, engine: Engine, platform: LocalAws
) -> None:
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    rollout = engine.start(upgrade)
    Rollout.objects.filter(pk=rollout.pk).update(**dict.fromkeys(columns_since(Rollout)))

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
def test_what_it_does_not_know_of_it_cannot_end(
    models_before: Any, cast: Cast, platform: LocalAws, wanted: str, written: dict[str, Any]
) -> None:
    """To its engine a version or a rollback is a rollout of what runs: refused by the database, it lets go of the row."""
    upgrade = trigger_upgrade(cast.acme, actor=cast.operator, service="agent", force_new_deployment=True)
    upgrade.rollouts.update(wanted_image=None, wanted_task_definition=None)
    upgrade.rollouts.update(**{wanted: "whatever:2"})
    rows = models_before.get_model("upgrades", "Rollout").objects.filter(upgrade_id=upgrade.pk)

    with pytest.raises(IntegrityError, match="rollout_does_what_is_wanted"), transaction.atomic():
        rows.update(**written, task_definition="arn:aws:ecs:::task-definition/acme-agent:1")


def test_it_reads_what_is_kept_of_a_task_definition(cast: Cast, platform: LocalAws) -> None:
    """In the shared cache; and what it kept itself, or a later release in another shape, harms nobody."""
    row = read_platform(cast.acme).services[0]  # type: ignore[union-attr]
    key = f"task-definition:{row.task_definition}"
    assert set(soft_cache.recall(key)) == {"arn", "family", "revision", "images"}

    soft_cache.remember(key, {"arn": row.task_definition, "of_a_later_release": True}, seconds=60)

    reading = read_platform(cast.acme, fresh_seconds=0)
    assert reading
    assert (reading.error, reading.services[0].version) == (None, "v9.9.0")


def columns_since(model: type[Rollout]) -> set[str]:
    """The model's fields that the release before does not have."""
    state = MigrationLoader(None).project_state(RELEASE_BEFORE).apps
    before = {field.name for field in state.get_model("upgrades", model.__name__)._meta.get_fields()}
    return {field.name for field in model._meta.concrete_fields} - before


def test_no_column_of_the_release_before_is_gone(models_before: Any, db: None) -> None:
    with connection.cursor() as cursor:
        for model in models_before.get_models():
            if model._meta.app_label in ("portal", "upgrades", "deployments"):
                table = connection.introspection.get_table_description(cursor, model._meta.db_table)
                missing = {field.column for field in model._meta.local_concrete_fields} - {row.name for row in table}
                assert missing == set(), model._meta.label


def test_its_messages_are_understood() -> None:
    app.loader.import_default_modules()

    for name, ids in MESSAGES.items():
        assert app.tasks[name].run.__code__.co_argcount == ids
