"""EVIDENCE: everything about one upgrade in one document, for an auditor. The JSON route and the printable page use it.

`sha256` is the checksum of the canonical JSON (keys sorted, no spaces, UTF-8) of the document without `sha256` and
`generated_at`. Documents with the same facts have the same checksum, whenever and in whichever form they were generated.
"""

import hashlib
import json
from typing import Any

from django.db.models import QuerySet, prefetch_related_objects
from django.utils import timezone

from portal.models import AuditEvent
from upgrades.api.records import EvidenceFacts
from upgrades.checks.matrix import get_matrix_rows
from upgrades.models import Upgrade, UpgradeEvent
from upgrades.states import PreflightCheck

Json = dict[str, Any]


def build_evidence(upgrade: Upgrade) -> Json:
    """Return the whole document. The upgrade comes from `for_record`, or from find_upgrade of the pages.

    *Costs* four more queries for any upgrade.
    """
    prefetch_related_objects([upgrade], "checks")
    rollbacks = sorted(upgrade.rollbacks.all(), key=lambda each: (each.created_at, each.pk))
    facts = EvidenceFacts(
        {
            "upgrade_id": upgrade.upgrade_id,
            "organization": build_organization_facts(upgrade),
            "kind": upgrade.kind,
            "status": upgrade.status,
            "validation": upgrade.validation,
            "message": upgrade.message,
            "actor": upgrade.initiated_by_email,
            "request": upgrade,
            "stop": upgrade if upgrade.stop_requested_at else None,
            "override_reason": upgrade.override_reason or None,
            "preflight": upgrade.preflight_checks,
            "services": upgrade.rollouts.all(),
            "checks": get_matrix_rows(upgrade) if upgrade.has_advanced else [],
            "rollbacks": [each.upgrade_id for each in rollbacks],
            "timeline": UpgradeEvent.objects.for_timeline(upgrade).reverse(),
            "audit": audit_rows(upgrade),
        }
    ).data
    facts = json.loads(canonical(facts))
    generated_at = timezone.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {**facts, "generated_at": generated_at, "sha256": hashlib.sha256(canonical(facts)).hexdigest()}


def build_organization_facts(upgrade: Upgrade) -> Json:
    """Return the organization, with its environment as pre-flight recorded it: it may have been renamed since."""
    organization = upgrade.organization
    recorded = [check.evidence for check in upgrade.checks.all() if check.name == PreflightCheck.ENVIRONMENT]
    environments = [evidence["environment"] for evidence in recorded if evidence.get("environment")]
    return {
        "slug": organization.slug,
        "name": organization.name,
        "environment": environments[0] if environments else organization.environment,
    }


def audit_rows(upgrade: Upgrade) -> QuerySet[AuditEvent]:
    """Return the audit rows about the upgrade, oldest first. None can be older than the upgrade."""
    rows = AuditEvent.objects.filter(
        organization=upgrade.organization_id, subject=upgrade.upgrade_id, created_at__gte=upgrade.created_at
    )
    return rows.order_by("created_at", "id")


def canonical(facts: Any) -> bytes:
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
