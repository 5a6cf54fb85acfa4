"""Commands that change agents."""

from typing import Any

from django.db import IntegrityError, transaction

from deployments.commands.record import audit, run_once
from deployments.commands.refusals import refuse_invalid
from deployments.container_spec import (
    MAX_VALUE_LENGTH,
    environment_errors,
    image_errors,
    looks_like_secret,
    size_errors,
)
from deployments.models import AGENT_NAME_ONCE, Agent
from deployments.secret_references import reference_errors
from portal.access import require
from portal.errors import PortalError, is_unique_violation, shortened
from portal.idempotency import KeyUse
from portal.models import AuditKind, Organization, Role, User

DEFAULT_CPU, DEFAULT_MEMORY = 256, 512
MAX_NAME_LENGTH, MAX_DESCRIPTION_LENGTH = 80, 2000
AGENT_FIELDS = ["name", "image", "cpu", "memory", "description", "environment"]


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
        audit(AuditKind.AGENT_CREATED, agent, actor, {"image": agent.image} | said)
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


def translate_name_taken(error: IntegrityError, organization: Organization, name: str) -> Exception:
    """Return the refusal if the error is about a duplicate agent name, else the error itself."""
    if not is_unique_violation(error, AGENT_NAME_ONCE):
        return error
    sentence = f"{organization.name} already has an agent named {name}."
    return PortalError("invalid", "Not accepted: name. See errors.", 400, errors={"name": [sentence]})
