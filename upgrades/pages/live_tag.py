"""What the live block of an upgrade shows now, as a statement that `get_page_organization` runs with its own."""

from datetime import datetime
from typing import Any, NamedTuple

from django.utils import timezone

from upgrades.states import OPEN, Status

# The sentence about the time left counts in minutes. An open upgrade's block is rendered again after this many seconds.
TIME_LEFT_STEP = 30
# What else a row of the block says, such as who may continue, only matters while a rollout waits for a decision.
UPGRADE = """
SELECT upgrade.status, upgrade.created_at, concat_ws(' ',
    upgrade.revision,
    (SELECT email FROM portal_user WHERE id = upgrade.stop_requested_by_id),
    (
        SELECT string_agg(concat_ws(':', part.id, part.revision), ',' ORDER BY part.id)
        FROM deployment_upgrade_services AS part WHERE part.upgrade_id = upgrade.id
    ), '/',
    (SELECT concat_ws(':', count(*), max(id)) FROM deployment_upgrade_events WHERE upgrade_id = upgrade.id), '/',
    (
        SELECT concat_ws(':', count(*), max(event.id)) FROM deployment_upgrade_events AS event
        JOIN deployment_upgrade_services AS part ON part.id = event.rollout_id WHERE part.upgrade_id = upgrade.id
    ), '/',
    (
        SELECT string_agg(concat_ws(':', part.id, part.revision), ',' ORDER BY part.id)
        FROM deployment_upgrade_checks AS part WHERE part.upgrade_id = upgrade.id
    ), '/',
    (SELECT part.revision FROM deployment_upgrade_validations AS part WHERE part.upgrade_id = upgrade.id), '/',
    (
        SELECT string_agg(concat_ws(':', part.id, part.revision), ',' ORDER BY part.id)
        FROM deployment_upgrade_decisions AS part
        JOIN deployment_upgrade_services AS rollout ON rollout.id = part.rollout_id WHERE rollout.upgrade_id = upgrade.id
    ), '/',
    (
        SELECT string_agg(concat_ws(':', back.id, back.revision, part.id, part.revision), ',' ORDER BY part.id)
        FROM deployment_upgrades AS back
        LEFT JOIN deployment_upgrade_services AS part ON part.upgrade_id = back.id WHERE back.rolls_back_id = upgrade.id
    ), '/',
    (
        SELECT string_agg(concat_ws(':', person.email, member.role, person.is_active), ',' ORDER BY person.id)
        FROM portal_membership AS member JOIN portal_user AS person ON person.id = member.user_id
        WHERE member.organization_id = %(organization)s AND member.accepted_at IS NOT NULL AND EXISTS (
            SELECT FROM deployment_upgrade_services AS part
            WHERE part.upgrade_id = upgrade.id AND part.outcome = 'waiting_for_decision'
        )
    )
), (
    SELECT string_agg(part.service || '=' || to_char(
        part.last_checked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'
    ), ' ')
    FROM deployment_upgrade_services AS part WHERE part.upgrade_id = upgrade.id
)
FROM deployment_upgrades AS upgrade
WHERE upgrade.organization_id = %(organization)s AND upgrade.upgrade_id = %(upgrade_id)s
"""


class LiveUpgrade(NamedTuple):
    """The columns of UPGRADE. All None: there is no such upgrade. `times`: when each rollout was last checked in ECS."""

    status: str | None
    created_at: datetime | None
    shown: str | None
    times: str | None

    @property
    def is_covered(self) -> bool:
        """Return whether `shown` covers the whole block: next steps after a failure also depend on later upgrades."""
        return self.status is not None and self.status not in (Status.PARTIAL, Status.FAILED)

    @property
    def step(self) -> int:
        """Return a number that changes every TIME_LEFT_STEP seconds while the upgrade is open."""
        if self.created_at is None or self.status not in OPEN:
            return 0
        return int((timezone.now() - self.created_at).total_seconds() // TIME_LEFT_STEP)


def live_upgrade(upgrade_id: str) -> tuple[str, dict[str, Any]]:
    """Return the statement UPGRADE with its values."""
    return UPGRADE, {"upgrade_id": upgrade_id}
