"""Revisions of an agent: recording one, and the differences between two."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Max
from django.db.models.expressions import RawSQL

from deployments.container_spec import is_secret_reference
from deployments.models import Agent, Deployment, Revision
from deployments.states import Status
from portal.database.statements import insert
from portal.models import User

# The settings that a revision shares with a deployment. The agent has all but the version, which its image names.
SETTINGS = ("image", "version", "cpu", "memory", "environment")


@dataclass(frozen=True)
class Difference:
    """A setting that differs. `name` is an environment variable if `is_variable`. None: the variable is not set there."""

    name: str
    before: str | None
    after: str | None
    is_variable: bool = False
    is_secret: bool = False


# Right under the lock on the agent (lock_agent), in a statement of its own or one that begins after it.
NEXT_NUMBER = "(SELECT COALESCE(MAX(number), 0) + 1 FROM deployments_revision WHERE agent_id = %s)"


def new_revision(
    agent: Agent,
    settings: dict[str, Any],
    *,
    actor: User,
    digest: str | None = None,
    restored_from: Revision | None = None,
) -> Revision:
    """Return the next revision of the agent, not yet saved. `settings` has the keys SETTINGS.

    The statement that inserts it counts its number, so the caller locks the agent before (lock_agent).
    """
    return Revision(
        organization_id=agent.organization_id,
        agent=agent,
        number=RawSQL(NEXT_NUMBER, [agent.pk]),  # noqa: S611 - our own
        digest=digest,
        restored_from=restored_from,
        created_by=actor,
        **settings,
    )


@transaction.atomic(savepoint=False)
def add_revision(
    agent: Agent,
    settings: dict[str, Any],
    *,
    actor: User,
    digest: str | None = None,
    restored_from: Revision | None = None,
) -> Revision:
    """Record the next revision of the agent. A caller that also locks deployments calls lock_agent before.

    `settings` has the keys SETTINGS. *Costs* two queries, and one when its number is read.
    """
    lock_agent(agent.pk)
    revision = new_revision(agent, settings, actor=actor, digest=digest, restored_from=restored_from)
    insert([revision])
    return revision


def lock_agent(agent_id: UUID) -> None:
    """Let only one transaction at a time add a revision of the agent. Call it before locking any of its deployments."""
    Agent.objects.select_for_update(no_key=True).values_list("pk").get(pk=agent_id)


def find_newest_number(agent: Agent) -> int:
    """Return the number of the agent's newest revision; 0 if it was never deployed."""
    newest: int | None = Revision.objects.filter(agent=agent).aggregate(newest=Max("number"))["newest"]
    return newest or 0


def get_settings(source: Revision) -> dict[str, Any]:
    return {name: getattr(source, name) for name in SETTINGS}


def compare(before: Revision, after: Revision) -> list[Difference]:
    """Return what differs: image, digest, size, then the variables by name. Empty if both run the same.

    A digest that only one side knows is no difference.
    """
    return [*compare_sizes(before, after), *compare_variables(before.environment, after.environment)]


def must_roll(deployment: Deployment, revision: Revision) -> bool:
    """Return whether a current deployment has to change to run the revision: it failed, or its settings differ."""
    own = deployment.target_revision
    return deployment.status == Status.FAILED or own is None or bool(compare(own, revision))


def compare_sizes(before: Revision, after: Revision) -> Iterator[Difference]:
    if before.image != after.image:
        yield Difference("image", before.image, after.image)
    if before.digest and after.digest and before.digest != after.digest:
        yield Difference("digest", before.digest, after.digest)
    if before.cpu != after.cpu:
        yield Difference("cpu", str(before.cpu), str(after.cpu))
    if before.memory != after.memory:
        yield Difference("memory", str(before.memory), str(after.memory))


def compare_variables(before: dict[str, str], after: dict[str, str]) -> Iterator[Difference]:
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new:
            is_secret = any(value is not None and is_secret_reference(value) for value in (old, new))
            yield Difference(name, old, new, is_variable=True, is_secret=is_secret)
