"""The upgrades that a search finds (portal/web/search.py)."""

from django.db import connection
from django.urls import reverse

from portal.models import Organization
from portal.web.search import HAS_WORDS, NEWEST, SHOWN, Found
from upgrades.models import Kind
from upgrades.pages.results import SERVICES, STATUSES
from upgrades.states import ALL_SERVICES

COLUMNS = "upgrade_id, target, version, status, kind, created_at, id"
FIELDS = "upgrade.upgrade_id, upgrade.target, upgrade.version, upgrade.kind, replace(upgrade.status, '_', ' ')"
UPGRADES = f"""
SELECT upgrade_id, target, version, status, kind FROM (
    SELECT * FROM (
        SELECT {COLUMNS} FROM deployment_upgrades WHERE organization_id = %s
        ORDER BY created_at DESC, id DESC LIMIT {NEWEST}
    ) AS upgrade WHERE {HAS_WORDS.format(fields=FIELDS)}
    UNION SELECT {COLUMNS} FROM deployment_upgrades WHERE organization_id = %s AND upgrade_id = %s
) AS found ORDER BY created_at DESC, id DESC LIMIT {SHOWN}
"""  # noqa: S608 - our own


def find_upgrades(organization: Organization, words: list[str]) -> list[Found]:
    """Return the upgrades that the words find, newest first. *Costs* one statement, none without words."""
    if not words:
        return []
    with connection.cursor() as cursor:
        cursor.execute(UPGRADES, [organization.pk, words, organization.pk, words[0]])
        return [build_found(organization.slug, *row) for row in cursor.fetchall()]


def build_found(slug: str, upgrade_id: str, target: str, version: str, status: str, kind: str) -> Found:
    services = "All three" if target == ALL_SERVICES else SERVICES[target].capitalize()
    label = f"{services} {'back' if kind == Kind.ROLLBACK else 'to'} {version}"
    kind_of = f"{Kind(kind).label}, {STATUSES[status].lower()}"
    return Found(reverse("upgrades:detail", args=[slug, upgrade_id]), label, upgrade_id, kind_of)
