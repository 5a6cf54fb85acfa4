"""The upgrades that a search finds (portal/web/search.py)."""

from django.db import connection
from django.urls import reverse

from portal.models import Organization
from portal.web.search import HAS_WORDS, NEWEST, SHOWN, Found
from upgrades.models import Kind
from upgrades.pages.results import STATUSES, choose_version, title_of
from upgrades.states import get_services

COLUMNS = "upgrade_id, target, version, status, kind, created_at, id"
FIELDS = (
    "upgrade.upgrade_id, upgrade.target, upgrade.version, upgrade.kind, replace(upgrade.status, '_', ' '), "
    "array_to_string(rolled.versions, ' ')"
)
UPGRADES = f"""
SELECT upgrade_id, target, version, status, kind, services, versions FROM (
    (SELECT {COLUMNS} FROM deployment_upgrades WHERE organization_id = %s
    ORDER BY created_at DESC, id DESC LIMIT {NEWEST})
    UNION SELECT {COLUMNS} FROM deployment_upgrades WHERE organization_id = %s AND upgrade_id = %s
) AS upgrade CROSS JOIN LATERAL (
    SELECT array_agg(service ORDER BY position) AS services, array_agg(to_version) AS versions
    FROM deployment_upgrade_services WHERE upgrade_id = upgrade.id
) AS rolled
WHERE upgrade_id = %s OR {HAS_WORDS.format(fields=FIELDS)}
ORDER BY created_at DESC, id DESC LIMIT {SHOWN}
"""  # noqa: S608 - our own


def find_upgrades(organization: Organization, words: list[str]) -> list[Found]:
    """Return the upgrades that the words find, newest first. *Costs* one statement, none without words."""
    if not words:
        return []
    with connection.cursor() as cursor:
        cursor.execute(UPGRADES, [organization.pk, organization.pk, words[0], words[0], words])
        return [build_found(organization.slug, *row) for row in cursor.fetchall()]


def build_found(
    slug: str,
    upgrade_id: str,
    target: str,
    version: str,
    status: str,
    kind: str,
    services: list[str] | None,
    rolled_to: list[str | None] | None,
) -> Found:
    """Return the result for a row, with the title of its page. `services` and `rolled_to`: None without rollouts."""
    wanted = choose_version(version, rolled_to or [])
    label = title_of(services or get_services(target), wanted, is_rollback=kind == Kind.ROLLBACK)
    kind_of = f"{Kind(kind).label}, {STATUSES[status].lower()}"
    return Found(reverse("upgrades:detail", args=[slug, upgrade_id]), label, upgrade_id, kind_of)
