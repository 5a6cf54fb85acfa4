"""An upgrade's timeline: lines are told in the transaction of what they tell of."""

from portal.models import User
from upgrades.models import Rollout, Upgrade, UpgradeEvent
from upgrades.states import EventKind


def tell(
    upgrade: Upgrade, kind: EventKind, message: str, *, rollout: Rollout | None = None, actor: User | None = None
) -> None:
    """Add a line. `actor` None means the portal itself."""
    UpgradeEvent.objects.create(
        organization_id=upgrade.organization_id,
        upgrade=upgrade,
        rollout=rollout,
        kind=kind,
        actor_email=actor.email if actor else "",
        message=message,
    )
