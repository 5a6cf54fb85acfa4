"""Prometheus gauges for upgrades, summed over all organizations. Alert on these."""

from django.db.models import Count, Max, Q
from django.db.models.functions import Now

from portal.monitoring.prometheus import Gauges, gauge, gauge_by, seconds_since
from upgrades.models import Rollout, Upgrade
from upgrades.states import UPGRADE_STATUSES


def gauges() -> Gauges:
    """Yield the gauges. Costs seven queries."""
    counted = dict(Upgrade.objects.order_by().values_list("status").annotate(Count("pk")))
    yield gauge_by(
        "status", "upgrades", "Recorded upgrades.", [(status, counted.get(status, 0)) for status in UPGRADE_STATUSES]
    )
    unfinished = Rollout.objects.unfinished()
    yield gauge("rollouts_open", "Rollouts that have not ended.", unfinished.count())
    yield gauge("rollouts_stalled", "Rollouts without progress.", unfinished.filter(is_stalled=True).count())
    late = unfinished.filter(Q(is_overdue=True) | Q(deadline_at__lt=Now(), waiting_since__isnull=True))
    yield gauge("rollouts_beyond_deadline", "Rollouts past their deadline that have not ended.", late.count())
    paused = unfinished.filter(waiting_since__isnull=False)
    yield gauge("rollouts_waiting_for_decision", "Rollouts that ECS paused until a person decides.", paused.count())
    waiting = Rollout.objects.due().aggregate(longest=Max(seconds_since("next_check_at")))["longest"]
    yield gauge("rollout_due_seconds", "Seconds that the most overdue rollout has waited for a worker.", waiting or 0)
    unseen = unfinished.aggregate(longest=Max(seconds_since("last_checked_at")))["longest"]
    yield gauge(
        "rollout_unseen_seconds",
        "Seconds since ECS was last read for the open rollout that was read longest ago.",
        unseen or 0,
    )
