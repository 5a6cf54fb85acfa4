"""The agents and deployments that a search finds, and the commands on them that it names (portal/web/search.py)."""

from typing import Any

from django.db import connection
from django.urls import reverse

from deployments.lists import find_id_range
from deployments.pages.action_words import LABELS
from deployments.states import FROM, Command, Status
from portal.models import Organization, Role
from portal.web.search import HAS_WORDS, NEWEST, SHOWN, Found

DEPLOY = "deploy"
# From so many digits on, the start of an id is looked up among all ids: fewer would be those of too many rows.
ID_FROM = 6
AGENTS = f"""
(SELECT %s, agent.id, agent.name, '', '' FROM deployments_agent AS agent
WHERE agent.organization_id = %s AND {HAS_WORDS.format(fields="agent.name, agent.id")}
ORDER BY lower(agent.name), agent.id LIMIT {SHOWN})
"""  # noqa: S608 - our own
DEPLOYMENTS = f"""
(SELECT %s, deployment.id, agent.name, deployment.status, coalesce(deployment.version, '') FROM (
    SELECT id, agent_id, status, version, created_at FROM deployments_deployment
    WHERE organization_id = %s ORDER BY created_at DESC, id DESC LIMIT {NEWEST}
) AS deployment JOIN deployments_agent AS agent ON agent.id = deployment.agent_id
WHERE deployment.status = ANY (%s)
    AND {HAS_WORDS.format(fields="agent.name, deployment.id, deployment.status, deployment.version")}
ORDER BY deployment.created_at DESC, deployment.id DESC LIMIT {SHOWN})
"""  # noqa: S608 - our own
BY_ID = f"""
(SELECT %s, deployment.id, agent.name, deployment.status, coalesce(deployment.version, '')
FROM deployments_deployment AS deployment JOIN deployments_agent AS agent ON agent.id = deployment.agent_id
WHERE deployment.organization_id = %s AND deployment.id BETWEEN %s AND %s LIMIT {SHOWN})
"""  # noqa: S608 - our own


def find_deployments(organization: Organization, words: list[str], role: Role | None) -> list[Found]:
    """Return what the words find. A first word that is a command, as in `stop triage`, finds what it can be used on.

    *Costs* one statement, none without words.
    """
    if not words:
        return []
    key = organization.pk
    parts: list[tuple[str, list[Any]]] = []
    first, *others = words
    may_act = role is not None and role.includes(Role.OPERATOR)
    if may_act and first == DEPLOY:
        parts.append((AGENTS, [DEPLOY, key, others]))
    elif may_act and first in FROM:
        possible = FROM[Command(first)] - {Status.KILLED}
        parts.append((DEPLOYMENTS, [first, key, list(possible), others]))
    parts += [(AGENTS, ["agent", key, words]), (DEPLOYMENTS, ["deployment", key, list(Status), words])]
    ids = find_id_range(first) if not others and len(first) >= ID_FROM else None
    if ids:
        parts.append((BY_ID, ["deployment", key, *ids]))
    statement = " UNION ALL ".join(part for part, _ in parts)
    with connection.cursor() as cursor:
        cursor.execute(statement, [value for _, values in parts for value in values])
        found = [build_found(organization.slug, *row) for row in cursor.fetchall()]
    return list(dict.fromkeys(found))


def build_found(slug: str, what: str, key: Any, name: str, status: str, version: str) -> Found:
    """Return the result for a row. `what` is agent, deployment, or the command that leads to its page."""
    short_id = str(key)[:8]
    if what == "agent":
        return Found(reverse("agents:detail", args=[slug, key]), name, "", "Agent")
    if what == DEPLOY:
        return Found(f"{reverse('deployments:new', args=[slug])}?agent={key}", f"Deploy {name}", "", "Action")
    detail = f"{short_id} {version}".strip()
    if what == "deployment":
        label = str(Status(status).label).lower()
        return Found(reverse("deployments:detail", args=[slug, key]), name, detail, f"Deployment, {label}")
    act = reverse("deployments:act", args=[slug, key, what])
    return Found(act, f"{LABELS[Command(what)]} {name}", detail, "Action")
