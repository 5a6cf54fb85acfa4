"""A service before and after its rollout: a part of the upgrade's page that is loaded later, and a page of its own."""

import math
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from portal.access import Policy, get_page_organization, person, policy
from portal.web.context import page_context
from portal.web.htmx import render_page
from upgrades.inventory.comparison import Comparison, Measure, Sample, can_compare, compare
from upgrades.inventory.diffs import read_past_diff
from upgrades.pages.service_logs import find_rollout

NAMES = {"errors": "Errors", "cpu": "CPU", "memory": "Memory", "restarts": "Restarts"}
# What the size of a sample counts.
SIZES = {"errors": "record", "cpu": "value", "memory": "value", "restarts": "task"}
USAGE = ("cpu", "memory")
MINUS = "\N{MINUS SIGN}"
NOT_ENOUGH = "Not enough data"
# How often a part that is not complete asks again.
LIVE_SECONDS = 60


@dataclass(frozen=True)
class Row:
    """A measure in words. `is_worse`: more restarts than before, or more errors than chance explains."""

    name: str
    before: str
    before_of: str
    after: str
    after_of: str
    change: str
    is_worse: bool


@policy(Policy.VIEWER)
@require_safe
def before_after(request: HttpRequest, slug: str, upgrade_id: str, service: str) -> HttpResponse:
    """Render what the rollout changed and the comparison, or why there is none."""
    organization = get_page_organization(request, slug)
    rollout = find_rollout(organization, upgrade_id, service)
    comparison = compare(rollout, now=timezone.now(), reader=person(request)) if can_compare(rollout) else None
    context = page_context(request, organization) | {
        "upgrade": rollout.upgrade,
        "rollout": rollout,
        "here": request.path,
        "comparison": comparison,
        "diff": read_past_diff(rollout) if comparison else None,
        "rows": build_rows(comparison) if comparison else [],
        "live_seconds": LIVE_SECONDS if comparison and not comparison.is_complete else None,
    }
    return render_page(request, "upgrades/before_after.html", "upgrades/_before_after.html", context)


def build_rows(comparison: Comparison) -> list[Row]:
    return [
        Row(
            NAMES[measure.name],
            *describe_sample(measure.name, measure.before),
            *describe_sample(measure.name, measure.after),
            describe_change(measure),
            is_worse(measure),
        )
        for measure in comparison.measures
    ]


def describe_sample(name: str, sample: Sample) -> tuple[str, str]:
    r"""Return the value, and of what it was measured.

    >>> describe_sample("cpu", Sample(41.5, 14)), describe_sample("errors", Sample(2, 1, is_cut=True))
    (('41.5\xa0%', '14 values'), ('2', 'of the newest 1 record'))
    """
    noun = f"{sample.size:,} {SIZES[name]}{'' if sample.size == 1 else 's'}"
    size = f"of the newest {noun}" if sample.is_cut else f"of\N{NO-BREAK SPACE}{noun}" if name == "errors" else noun
    if name == "restarts" and not sample.size:
        size = ""  # without Container Insights
    if sample.value is None:
        return NOT_ENOUGH, size if sample.size else ""
    return f"{sample.value:g}\N{NO-BREAK SPACE}%" if name in USAGE else f"{sample.value:g}", size


def describe_change(measure: Measure) -> str:
    """Return the change with its sign; empty if one side has not enough data."""
    change = measure.change
    if change is None:
        return ""
    if not change:
        return "same"
    return f"{change:+g}".replace("-", MINUS)


def is_worse(measure: Measure) -> bool:
    """Return whether the change calls for attention.

    Errors come at random times, so their number differs by its square root without any cause.
    """
    change = measure.change or 0
    if measure.name in USAGE or change <= 0:
        return False
    if measure.name == "restarts":
        return True
    return change > 2 * math.sqrt((measure.before.value or 0) + (measure.after.value or 0))
