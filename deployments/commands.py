"""Commands that change agents and deployments. The pages and the API both call them. They enforce the role and state rules.

Each command checks the role first. One transaction then holds the guarded change, its event and its audit row. After the
commit a reconcile task is dispatched. A repeated Idempotency-Key returns the result of its first use. Without a key, a
repeated command is a no-op.
"""

import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

from django.db import IntegrityError, transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from deployments.container_spec import (
    MAX_VALUE_LENGTH,
    environment_errors,
    image_errors,
    image_version,
    looks_like_secret,
    size_errors,
    version_errors,
    with_version,
)
from deployments.events import change_with_event, create_with_event, make_change
from deployments.models import AGENT_NAME_ONCE, Agent, Deployment, Revision
from deployments.revisions import add_revision, get_settings, lock_agent, must_roll, new_revision
from deployments.secret_references import reference_errors
from deployments.states import FROM, Command, DesiredState, EventType, Status
from portal import soft_cache
from portal.access import require
from portal.after_response import write_after_response
from portal.audit import record
from portal.aws.ecr import parse_image
from portal.database.statements import Given, UpdateStatement, insert, prepare
from portal.errors import PortalError, is_unique_violation, shortened
from portal.idempotency import KeyUse
from portal.models import AuditKind, Organization, Role, User
from portal.request_id import request_id_var
from portal.wakeup import dispatch

DEFAULT_CPU, DEFAULT_MEMORY = 256, 512
MAX_NAME_LENGTH, MAX_DESCRIPTION_LENGTH = 80, 2000
# How long a deployment is polled often after it was last viewed.
WATCH_DURATION = timedelta(seconds=20)
WATCH_WRITE_SECONDS = 5

# What must be as it was read for a command to write its change, and what each change writes.
UNCHANGED = ("status", "requested_generation", "observed_generation")
WRITTEN_ALWAYS = ("requested_generation", "next_check_at", "doubted_at", "events_count", "event_counts")

Made = TypeVar("Made")


# --- agents -----------------------------------------------------------------------------------------------------------


def create_agent(
    organization: Organization,
    *,
    actor: User,
    name: str,
    image: str,
    cpu: int = DEFAULT_CPU,
    memory: int = DEFAULT_MEMORY,
    description: str = "",
    environment: dict[str, str] | None = None,
    not_secrets: list[str] | None = None,
    idempotency_key: str | None = None,
) -> Agent:
    """Create an agent. Nothing runs until it is deployed. `not_secrets` names variables that only look like secrets.

    *Raises* PortalError: 403, 404, 400 `invalid` with `errors` by field, 422 `idempotency_mismatch`.
    """
    require(actor, organization, Role.OPERATOR)
    fields: dict[str, Any] = {
        "name": name.strip(),
        "image": image,
        "cpu": cpu,
        "memory": memory,
        "description": description,
        "environment": environment or {},
    }
    said = find_said_names(fields["environment"], not_secrets)
    asked = fields | said
    key = KeyUse.for_request("create_agent", asked, organization=organization, user=actor, key=idempotency_key)
    refuse_invalid(agent_errors(organization, fields, kept={}, not_secrets=said.get("not_secrets", [])))

    def make() -> Agent:
        agent = Agent.objects.create(organization=organization, **fields)
        key.store(str(agent.pk))
        audit(AuditKind.AGENT_CREATED, agent, actor, {"name": agent.name, "image": agent.image} | said)
        return agent

    try:
        return run_once(key, make, lambda pk: Agent.objects.get(pk=pk, organization=organization))
    except IntegrityError as error:
        raise translate_name_taken(error, organization, fields["name"]) from error


def update_agent(agent: Agent, *, actor: User, not_secrets: list[str] | None = None, **changes: Any) -> Agent:
    """Change the agent for its future deployments. Running deployments keep their settings.

    `changes` may hold name, image, cpu, memory, description and environment. `not_secrets` as for create_agent.

    *Raises* PortalError: 403, 404, 400 `invalid`.
    """
    require(actor, agent.organization, Role.OPERATOR)
    if "name" in changes:
        changes["name"] = changes["name"].strip()
    with transaction.atomic():
        locked = Agent.objects.select_for_update(no_key=True).get(pk=agent.pk)
        fields = {name: getattr(locked, name) for name in AGENT_FIELDS} | changes
        said = find_said_names(fields["environment"], not_secrets, kept=locked.environment)
        confirmed = said.get("not_secrets", [])
        refuse_invalid(agent_errors(agent.organization, fields, kept=locked.environment, not_secrets=confirmed))
        changed = {name: value for name, value in changes.items() if getattr(locked, name) != value}
        if changed:
            save_agent(locked, changed)
            # Only the names: a value may be a secret that was entered by mistake.
            audit(AuditKind.AGENT_CHANGED, agent, actor, {"fields": sorted(changed)} | said)
    for name in AGENT_FIELDS:
        setattr(agent, name, getattr(locked, name))
    return agent


def save_agent(agent: Agent, changed: dict[str, Any]) -> None:
    """Save the changed fields. *Raises* PortalError 400 `invalid` if another agent has the name."""
    for name, value in changed.items():
        setattr(agent, name, value)
    try:
        with transaction.atomic():
            agent.save(update_fields=list(changed))
    except IntegrityError as error:
        raise translate_name_taken(error, agent.organization, agent.name) from error


AGENT_FIELDS = ["name", "image", "cpu", "memory", "description", "environment"]


def find_said_names(
    environment: dict[str, str], names: list[str] | None, *, kept: dict[str, str] | None = None
) -> dict[str, list[str]]:
    """Return `{"not_secrets": [..]}` with the named variables that would be refused without it, for the audit row.

    `environment_errors` refuses a value that is too long, so it is not judged here.
    """
    found = [
        name
        for name in sorted(set(names or []))
        if (value := environment.get(name))
        and len(value) <= MAX_VALUE_LENGTH
        and (kept or {}).get(name) != value
        and looks_like_secret(name, value)
    ]
    return {"not_secrets": found} if found else {}


def agent_errors(
    organization: Organization, fields: dict[str, Any], *, kept: dict[str, str], not_secrets: list[str]
) -> dict[str, list[str]]:
    """Return the error sentences by field. Forms and serializers check types and shape before.

    `kept`: the agent's present environment. `not_secrets`: names that the person says are no secrets.
    """
    found: dict[str, list[str]] = {}
    if not 1 <= len(fields["name"]) <= MAX_NAME_LENGTH:
        found["name"] = [f"A name must have 1 to {MAX_NAME_LENGTH} characters."]
    if len(fields["description"]) > MAX_DESCRIPTION_LENGTH:
        found["description"] = [f"A description can have at most {MAX_DESCRIPTION_LENGTH} characters."]
    if errors := image_errors(fields["image"]):
        found["image"] = errors
    environment = fields["environment"]
    plain = environment_errors(environment, kept=kept, not_secrets=not_secrets)
    if errors := plain or reference_errors(organization, environment, kept):
        found["environment"] = shortened(errors)
    return found | size_errors(fields["cpu"], fields["memory"])


def refuse_invalid(errors: dict[str, list[str]]) -> None:
    if errors:
        raise PortalError("invalid", f"Not accepted: {', '.join(errors)}. See errors.", 400, errors=errors)


def translate_name_taken(error: IntegrityError, organization: Organization, name: str) -> Exception:
    """Return the refusal if the error is about a duplicate agent name, else the error itself."""
    if not is_unique_violation(error, AGENT_NAME_ONCE):
        return error
    sentence = f"{organization.name} already has an agent named {name}."
    return PortalError("invalid", "Not accepted: name. See errors.", 400, errors={"name": [sentence]})


# --- deployments ------------------------------------------------------------------------------------------------------


def create_deployment(
    agent: Agent,
    *,
    actor: User,
    replicas: int = 1,
    version: str | None = None,
    idempotency_key: str | None = None,
) -> Deployment:
    """Create a deployment of the agent with status `deploying`. The reconciler then creates its ECS service.

    `version` is an image tag that replaces the agent's own.

    *Raises* PortalError: 403, 404, 400 `no_cluster`, 400 `invalid`, 422 `idempotency_mismatch`.
    """
    organization = agent.organization
    require(actor, organization, Role.OPERATOR)
    request = {"agent_id": str(agent.pk), "replicas": replicas, "version": version}
    key = KeyUse.for_request("create_deployment", request, organization=organization, user=actor, key=idempotency_key)

    def make() -> Deployment:
        refuse_bad_replicas(organization, replicas)
        refuse_invalid({"version": errors} if version and (errors := version_errors(version)) else {})
        find_cluster(organization)
        lock_agent(agent.pk)
        revision = new_current_revision(agent, version, actor)
        deployment = deploy_revision(revision, actor, replicas, is_version_pinned=bool(version))
        said = {"actor": actor.email, "detail": f"{replicas} of {deployment.image}"}
        create_with_event(deployment, key=key, revision=revision, **said)
        audit(AuditKind.DEPLOYMENT_CREATED, deployment, actor, request)
        dispatch_deployment(deployment)
        return deployment

    return run_once(key, make, lambda pk: Deployment.objects.get(pk=pk, organization=organization))


def new_deployment(agent: Agent, actor: User, replicas: int, version: str | None) -> Deployment:
    """Return a deployment of a new revision with the agent's settings. The revision is saved, the deployment is not yet."""
    find_cluster(agent.organization)  # before the revision
    with transaction.atomic():
        lock_agent(agent.pk)
        revision = new_current_revision(agent, version, actor)
        insert([revision])
    return deploy_revision(revision, actor, replicas, is_version_pinned=bool(version))


def new_current_revision(agent: Agent, version: str | None, actor: User) -> Revision:
    """Return a new revision with the agent's settings, not yet saved. `version` replaces the image's tag."""
    image = with_version(agent.image, version) if version else agent.image
    settings = {
        "image": image,
        "version": image_version(image),
        "cpu": agent.cpu,
        "memory": agent.memory,
        "environment": agent.environment,
    }
    return new_revision(agent, settings, actor=actor, digest=parse_image(image).digest)


def deploy_revision(revision: Revision, actor: User, replicas: int, *, is_version_pinned: bool = False) -> Deployment:
    """Return a deployment of the revision, not yet saved."""
    agent = revision.agent
    deployment_id = uuid.uuid4()
    return Deployment(
        id=deployment_id,
        organization=agent.organization,
        agent=agent,
        replicas=replicas,
        is_version_pinned=is_version_pinned,
        target_revision=revision,
        **get_settings(revision),
        cluster=find_cluster(agent.organization),
        service_name=service_name(agent, deployment_id),
        created_by=actor,
        requested_by=actor,
        request_id=request_id_var.get(),
        started_at=Now(),
        next_check_at=Now(),
    )


def find_cluster(organization: Organization) -> str:
    """Return the name of the organization's cluster. *Raises* PortalError 400 `no_cluster`."""
    if organization.cluster is None:
        raise PortalError(
            "no_cluster",
            f"{organization.name} has neither an ECS cluster nor a stack. Staff can set them in Django admin.",
            400,
        )
    return organization.cluster


def service_name(agent: Agent, deployment_id: uuid.UUID) -> str:
    """Return the ECS service name `<stack>-agent-<slug>-<short id>`.

    ECS allows letters, digits and hyphens, at most 255 characters.
    """
    organization = agent.organization
    slug = re.sub(r"[^a-z0-9]+", "-", agent.name.lower()).strip("-")[:60].strip("-")
    parts = [organization.deployment_stack or organization.slug, "agent", slug, str(deployment_id)[:8]]
    return "-".join(part for part in parts if part)


def scale_deployment(
    deployment: Deployment, *, actor: User, replicas: int, idempotency_key: str | None = None
) -> Deployment:
    """Set the desired replica count. Setting the current value is a no-op. The status changes only when ECS reports it.

    *Raises* PortalError: 403, 404, 400 `invalid` (bounds), 400 `not_running`, 422 `idempotency_mismatch`.
    """

    def plan(row: Deployment) -> Change | None:
        refuse_bad_replicas(deployment.organization, replicas)
        if row.replicas == replicas and not is_pending_of_another(row, actor):
            return None
        data = {"before": row.replicas, "after": replicas}
        fields = {"replicas": replicas}
        return Change(
            EventType.SCALE, AuditKind.DEPLOYMENT_SCALED, fields, data, detail=f"from {row.replicas} to {replicas}"
        )

    return run_command(deployment, Command.SCALE, actor, idempotency_key, plan, replicas=replicas)


def stop_deployment(deployment: Deployment, *, actor: User, idempotency_key: str | None = None) -> Deployment:
    """Request that all tasks stop. Repeating it is a no-op.

    The deployment is `is_stopping` until ECS reports that no task runs; then its status becomes `stopped`.

    *Raises* PortalError: 403, 404, 400 `not_running`, 422 `idempotency_mismatch`.
    """

    def plan(row: Deployment) -> Change | None:
        if row.wanted == DesiredState.STOPPED and not is_pending_of_another(row, actor):
            return None
        return Change(EventType.STOP, AuditKind.DEPLOYMENT_STOP_REQUESTED, {"wanted": DesiredState.STOPPED})

    return run_command(deployment, Command.STOP, actor, idempotency_key, plan)


def restart_deployment(deployment: Deployment, *, actor: User, idempotency_key: str | None = None) -> Deployment:
    """Start a stopped or failed deployment again, with status `deploying`.

    A stopped deployment runs the same tasks again. A failed one gets a new generation from the agent's current settings.

    *Raises* PortalError: 403, 404, 400 `not_restartable`, 422 `idempotency_mismatch`.
    """

    def plan(row: Deployment) -> Change | None:
        fields = build_start()
        if row.status == Status.FAILED:
            pinned = row.version if row.is_version_pinned else None
            agent = Agent.objects.get(pk=row.agent_id)
            revision = new_current_revision(agent, pinned, actor)
            insert([revision])
            fields |= build_new_generation(row, revision)
        data = {"generation": fields.get("generation")}
        return Change(EventType.RESTART, AuditKind.DEPLOYMENT_RESTARTED, fields, data)

    require(actor, deployment.organization, Role.OPERATOR)
    with transaction.atomic():
        lock_agent(deployment.agent_id)  # a new generation has a new revision
        if deployment.status == Status.FAILED:  # its row cannot change then, so that `plan` makes one revision
            deployment.refresh_from_db(from_queryset=Deployment.objects.select_for_update(no_key=True))
        return run_command(deployment, Command.RESTART, actor, idempotency_key, plan)


def build_start() -> dict[str, Any]:
    """Return the fields of a deployment whose tasks start again."""
    return {
        "wanted": DesiredState.RUNNING,
        "status": Status.DEPLOYING,
        "status_at": Now(),
        "started_at": Now(),
        "ended_at": None,
        "error_message": None,
        "failed_tasks": 0,
    }


def build_new_generation(deployment: Deployment, revision: Revision) -> dict[str, Any]:
    """Return the fields of a new generation, which runs the revision."""
    return {"generation": deployment.generation + 1, "target_revision": revision.pk, **get_settings(revision)}


# --- returning to an earlier revision ---------------------------------------------------------------------------------


def restore_revision(
    revision: Revision, *, actor: User, newest: int | None = None, idempotency_key: str | None = None
) -> Revision:
    """Deploy an earlier revision again, as a new one. Return the new one.

    The agent gets its settings. The agent's live deployments with other settings, and the newest one if it failed, roll to
    it in place; without any live or failed one, a deployment with one task is created. A stopped one stays stopped.

    `newest`: the number of the newest revision that the person saw. None is not compared.

    *Raises* PortalError: 403, 404, 409 `revision_changed`, 400 `invalid` (its secrets), 400 `no_cluster`, 422
    `idempotency_mismatch`.
    """
    agent, organization = revision.agent, revision.organization
    require(actor, organization, Role.OPERATOR)
    request = {"agent_id": str(agent.pk), "number": revision.number, "newest": newest}
    key = KeyUse.for_request("restore_revision", request, organization=organization, user=actor, key=idempotency_key)
    refuse_secrets(revision)

    def make() -> Revision:
        lock_agent(agent.pk)
        current_rows = Deployment.objects.current(agent).select_related("organization", "target_revision")
        locked = current_rows.select_for_update(of=("self",), no_key=True).order_by("pk")
        current = [each for each in locked if not each.is_stopping]
        made = add_revision(agent, get_settings(revision), actor=actor, digest=revision.digest, restored_from=revision)
        if newest is not None and newest != made.number - 1:
            sentence = f"{agent.name} was deployed meanwhile: its newest revision is {made.number - 1}. Compare again."
            raise PortalError("revision_changed", sentence, 409)
        fields = take_settings(agent, made)
        moved = [each for each in current if must_roll(each, made)]
        for deployment in moved:
            roll(deployment, made, actor)
        created = None if current else deploy_again(made, actor)
        key.store(str(made.pk))
        # All audit rows come last, because the first one holds the end of the organization's chain.
        of_revision = {"revision": made.number}
        for deployment in moved:
            audit(AuditKind.DEPLOYMENT_RESTARTED, deployment, actor, of_revision)
        if created:
            audit(AuditKind.DEPLOYMENT_CREATED, created, actor, of_revision | {"replicas": created.replicas})
        audit(AuditKind.AGENT_CHANGED, agent, actor, of_revision | {"fields": fields, "restored_from": revision.number})
        return made

    return run_once(key, make, lambda pk: Revision.objects.get(pk=pk, organization=organization))


def refuse_secrets(revision: Revision) -> None:
    """Refuse references that the organization may no longer use. The agent keeps those that it has."""
    kept = Agent.objects.values_list("environment", flat=True).get(pk=revision.agent_id)
    errors = reference_errors(revision.organization, revision.environment, kept)
    refuse_invalid({"environment": shortened(errors)} if errors else {})


def take_settings(agent: Agent, revision: Revision) -> list[str]:
    """Give the agent the settings of the revision. Return the names of the fields that changed."""
    taken = ("image", "cpu", "memory", "environment")
    current = Agent.objects.get(pk=agent.pk)
    changed = {name: getattr(revision, name) for name in taken if getattr(current, name) != getattr(revision, name)}
    if changed:
        Agent.objects.filter(pk=agent.pk).update(**changed)
    return sorted(changed)


def roll(deployment: Deployment, revision: Revision, actor: User) -> None:
    """Let a locked deployment replace its tasks by those of the revision. ECS reports the status of a live one."""
    is_failed = deployment.status == Status.FAILED
    fields = build_new_generation(deployment, revision) | (build_start() if is_failed else {})
    fields |= {
        "is_version_pinned": False,
        "requested_generation": F("requested_generation") + 1,
        "requested_by": actor.pk,
        "next_check_at": Now(),
        "doubted_at": None,
        "request_id": request_id_var.get(),
    }
    statement = make_change(Deployment.objects.filter(pk=deployment.pk), fields)
    status = fields.get("status", deployment.status)
    said = {"actor": actor.email, "detail": f"to revision {revision.number}"}
    change_with_event(statement, {}, EventType.RESTART, status=status, key=None, **said)
    dispatch_deployment(deployment)


def deploy_again(revision: Revision, actor: User) -> Deployment:
    deployment = deploy_revision(revision, actor, replicas=1)
    create_with_event(deployment, key=None, actor=actor.email, detail=f"1 of {deployment.image}")
    dispatch_deployment(deployment)
    return deployment


def kill_deployment(deployment: Deployment, *, actor: User, idempotency_key: str | None = None) -> Deployment:
    """Mark the deployment as `killed`, from any status. Repeating it is a no-op.

    The record is kept. The reconciler deletes the ECS service afterwards.

    *Raises* PortalError: 403, 404, 422 `idempotency_mismatch`.
    """

    def plan(row: Deployment) -> Change | None:
        if row.status == Status.KILLED and not is_pending_of_another(row, actor):
            return None
        fields = {"wanted": DesiredState.GONE, "status": Status.KILLED, "status_at": Now(), "ended_at": Now()}
        return Change(EventType.KILL, AuditKind.DEPLOYMENT_KILLED, fields)

    return run_command(deployment, Command.KILL, actor, idempotency_key, plan)


def mark_watched(*deployments: Deployment) -> None:
    """Mark deployments as being viewed so that the reconciler polls them more often, after the response was sent.

    Does not fail if a row is gone or locked, the database is read-only or the cache is down.

    *Costs* one transaction every few seconds; none while the last mark is recent. One each time while the cache is down.
    """
    keys = {f"watched:{each.pk}": each.pk for each in deployments}
    unmarked = soft_cache.select_first(list(keys), seconds=WATCH_WRITE_SECONDS)
    if unmarked:
        write_after_response(lambda: write_watched([keys[key] for key in unmarked]))


def mark_unmarked(pks: list[uuid.UUID]) -> None:
    """Mark these deployments, whose marks are old, as `mark_watched` does. *Costs* one transaction if there are any."""
    if pks:
        write_after_response(lambda: write_watched(pks))


def write_watched(pks: list[Any]) -> None:
    rows = Deployment.unfinished().filter(pk__in=pks)
    rows.filter(Q(watched_until__isnull=True) | Q(watched_until__lt=Now())).update(next_check_at=Now())
    rows.update(watched_until=Now() + WATCH_DURATION)


# --- shared by the commands -------------------------------------------------------------------------------------------


def refuse_bad_replicas(organization: Organization, replicas: int) -> None:
    most = organization.deployment_replica_limit
    if not 1 <= replicas <= most:
        refuse_invalid({"replicas": [f"Must be 1 to {most}, the limit for {organization.name}."]})


@dataclass(frozen=True)
class Change:
    """What a command changes: the fields of the row, its event and its audit row."""

    event: EventType
    kind: AuditKind
    fields: dict[str, Any]
    data: dict[str, Any] = field(default_factory=dict)
    detail: str = ""


def run_command(
    deployment: Deployment,
    command: Command,
    actor: User,
    idempotency_key: str | None,
    plan: Callable[[Deployment], Change | None],
    **request: Any,
) -> Deployment:
    """Check role, key and rule, then change the deployment. Return it; changed fields are read again when they are used.

    `plan` returns the change of a row, None if the row is already as asked. What it says about the row as the caller read
    it is written if the row is still the same. If not, and before anything is refused, the row is locked and read again.
    """
    organization = deployment.organization
    require(actor, organization, Role.OPERATOR)
    asked = {"deployment_id": str(deployment.pk), **request}
    key = KeyUse.for_request(f"{command}_deployment", asked, organization=organization, user=actor, key=idempotency_key)

    def make() -> None:
        change = plan(deployment) if deployment.refusal(command) is None else None
        if change is None or not write_change(deployment, command, actor, change, key):
            deployment.refresh_from_db(from_queryset=Deployment.objects.select_for_update(no_key=True))
            refusal = deployment.refusal(command)
            if refusal:
                raise PortalError(refusal.code, refusal.message, 400)
            change = plan(deployment)
            if change is None or not write_change(deployment, command, actor, change, key):
                key.store(str(deployment.pk))
                change = None
        if change:
            audit(change.kind, deployment, actor, change.data)
        dispatch_deployment(deployment)

    run_once(key, make, lambda _: None)
    return deployment


def write_change(row: Deployment, command: Command, actor: User, change: Change, key: KeyUse) -> bool:
    """Change what is wanted, make the row due immediately, add the event and store the key.

    Return False, with nothing written, if the row is no longer as it was read, or its status does not allow the command.
    """
    fields = change.fields | {"requested_by": actor.pk, "request_id": request_id_var.get()}
    now = tuple(name for name, value in fields.items() if isinstance(value, Now))
    plain = {name: value for name, value in fields.items() if name not in now}
    before = {f"{name}_before": getattr(row, name) for name in ("pk", *UNCHANGED)}
    given = before | prepare(Deployment, plain)
    status = change.fields.get("status", row.status)
    said = {"actor": actor.email, "detail": change.detail}
    statement = make_statement(command, tuple(plain), now)
    is_written = change_with_event(statement, given, change.event, status=status, key=key, **said)
    if is_written:
        forget_fields(row, *fields, *WRITTEN_ALWAYS)
    return is_written


@cache
def make_statement(command: Command, given: tuple[str, ...], now: tuple[str, ...]) -> UpdateStatement:
    """Return the statement of a command: the fields that it is given, and those that it sets to the present time."""
    same = {name: Given(f"{name}_before") for name in ("pk", *UNCHANGED)}
    fields: dict[str, Any] = {name: Given(name) for name in given} | {name: Now() for name in now}
    always = {"requested_generation": F("requested_generation") + 1, "next_check_at": Now(), "doubted_at": None}
    return make_change(Deployment.objects.filter(status__in=FROM[command]).filter(**same), fields | always)


def is_pending_of_another(row: Deployment, actor: User) -> bool:
    """Return whether a change that another person wants is not yet applied.

    It is then asked for again: the first one may have lost the role for it (engine/rights.py).
    """
    return row.observed_generation < row.requested_generation and row.requested_by_id != actor.pk


def forget_fields(deployment: Deployment, *names: str) -> None:
    """Let these fields be read again when they are used. Most callers need none of them."""
    for each in Deployment._meta.concrete_fields:
        if each.name in names:
            deployment.__dict__.pop(each.attname, None)


def run_once(key: KeyUse, make: Callable[[], Made], find: Callable[[str], Made]) -> Made:
    """Run `make` in one transaction, or find what the same key made before, even if a concurrent request made it."""
    try:
        with transaction.atomic():
            return make()
    except (PortalError, IntegrityError):
        earlier = key.find_earlier()
        if earlier:
            return find(earlier)
        raise


def audit(kind: AuditKind, subject: Agent | Deployment, actor: User | None, data: dict[str, Any]) -> None:
    named = {"service_name": subject.service_name} if isinstance(subject, Deployment) else {}
    record(kind, organization=subject.organization, actor=actor, subject=str(subject.pk), data=data | named)


def dispatch_deployment(deployment: Deployment) -> None:
    """Dispatch a reconcile task after the commit. If it is lost, the sweep finds the row within a second."""
    place = (str(deployment.organization_id), deployment.cluster)
    transaction.on_commit(lambda: dispatch("deployments.tasks.reconcile", *place))
