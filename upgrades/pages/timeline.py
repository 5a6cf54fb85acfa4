"""An upgrade's timeline for its page: the entries of one kind or of all, with the count of each kind."""

from collections import Counter
from dataclasses import dataclass

from portal.pagination import Page, paginate_list
from upgrades.models import Upgrade, UpgradeEvent
from upgrades.states import EventKind

EVENTS_PER_PAGE = 50
KIND_LABELS = {kind.value: str(kind.label) for kind in EventKind}
COLUMNS = ("upgrade", "rollout", "kind", "actor_email", "message", "created_at")


@dataclass(frozen=True)
class KindCount:
    kind: EventKind
    count: int


@dataclass(frozen=True)
class Timeline:
    """One page of timeline entries.

    `kinds`: the kinds that have entries, in the order of states.py. `kind`: the selected kind, empty for all.
    """

    page: Page[UpgradeEvent]
    kinds: list[KindCount]
    kind: str
    count: int


def read_events(upgrade: Upgrade) -> list[UpgradeEvent]:
    """Return all entries of the upgrade, newest first, with their rollouts: for the timeline and for the rollouts' cards.

    The upgrade must come from `for_record`. Costs one query.
    """
    rollouts = {rollout.pk: rollout for rollout in upgrade.rollouts.all()}
    events = list(UpgradeEvent.objects.for_timeline(upgrade).select_related(None).only(*COLUMNS))
    for event in events:
        event.rollout = rollouts[event.rollout_id] if event.rollout_id else None
    return events


def build_timeline(events: list[UpgradeEvent], *, kind: str = "", skip: int = 0) -> Timeline:
    """Return one page of the timeline."""
    counts = Counter(event.kind for event in events)
    found = [event for event in events if kind in ("", event.kind)]
    return Timeline(
        page=paginate_list(found, skip=skip, limit=EVENTS_PER_PAGE),
        kinds=[KindCount(each, counts[each]) for each in EventKind if each in counts],
        kind=kind,
        count=len(events),
    )
