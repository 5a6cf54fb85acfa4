"""What needs attention among the platform services and their upgrades, for the overview. Contains no rules about state."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from urllib.parse import urlencode

from django.conf import settings
from django.urls import reverse
from django.utils import timezone
from django.utils.text import capfirst

from portal.models import Organization
from portal.templatetags.formatting import zoned_minute
from portal.web.attention import Item, Level
from upgrades.inventory.catalogue import find_newer_version
from upgrades.inventory.ecs_services import RunningService
from upgrades.inventory.logs import read_rollout_error
from upgrades.inventory.running import Reading
from upgrades.models import Rollout, Upgrade, UpgradeCheck
from upgrades.pages.lanes import newest_sentence
from upgrades.pages.rollout_cards import build_headline, build_hook
from upgrades.states import (
    ALL_SERVICES,
    ROLLED_OUT,
    CheckStatus,
    Outcome,
    Phase,
    PlatformService,
    Stage,
    Status,
    Validation,
    inline_label,
)

# What ECS says of a service while no upgrade of the portal moves it: chip, and what it means.
TROUBLE = {
    "failed": ("Deployment failed", "its newest deployment failed, and ECS left it so"),
    "degraded": ("Too few tasks", "fewer tasks run than desired"),
    "missing": ("Missing", "ECS has no such service in the cluster"),
}
# A person decided so, or the upgrade never began.
NO_FAILURE: frozenset[str] = frozenset({Outcome.STOPPED_BY_USER, Outcome.NOT_ATTEMPTED, Outcome.CHANGED_SINCE})
CHECKS_NAMED = 3


def find_attention(organization: Organization, reading: Reading | None, upgrades: list[Upgrade]) -> list[Item]:
    """Return the items. `upgrades`: the open ones, with their rollouts.

    *Costs* one query if the newest upgrade of a service is not validated, else none; and find_newer_version.
    """
    rows = reading.services if reading else []
    rolling = {rollout.service for upgrade in upgrades for rollout in open_rollouts(upgrade)}
    settled = [row for row in rows if row.service not in rolling]
    items = [item for upgrade in upgrades for item in describe_open(organization, upgrade)]
    items += describe_failures(organization, settled)
    items += [describe_trouble(organization, row) for row in settled if row.state in TROUBLE]
    items += [describe_drift(organization, row) for row in settled if row.drift]
    items += find_unvalidated(organization, settled)
    return [*items, *find_news(organization, rows, is_rolling=bool(rolling))]


def open_rollouts(upgrade: Upgrade) -> list[Rollout]:
    return [rollout for rollout in upgrade.rollouts.all() if rollout.phase != Phase.DONE]


def get_url(organization: Organization, upgrade: Upgrade, anchor: str = "") -> str:
    return reverse("upgrades:detail", args=[organization.slug, upgrade.upgrade_id]) + anchor


def describe_open(organization: Organization, upgrade: Upgrade) -> Iterable[Item]:
    """Yield what needs a person in an open upgrade: a pause, a rollback, an overdue or a stalled rollout."""
    for rollout in open_rollouts(upgrade):
        label = rollout.get_service_display()
        card = get_url(organization, upgrade, f"#rollout-card-{rollout.service}")
        if rollout.waiting_hook:
            hook = build_hook(rollout)
            until = f" until {zoned_minute(hook.expires_at)}" if hook and hook.expires_at else ""
            then = f" Then {hook.then}." if hook and hook.then else ""
            yield Item(
                Level.WARN,
                "waiting_for_decision",
                "Waiting",
                f"{label}: the rollout waits for a decision",
                "Decide",
                get_url(organization, upgrade, f"#hook-{rollout.service}"),
                reason=f"ECS waits{until}. Nothing moves meanwhile.{then}",
                at=rollout.waiting_since,
            )
        elif rollout.outcome == Outcome.ROLLING_BACK:
            title = f"{label}: ECS is rolling back"
            yield Item(
                Level.BAD, "rolling_back", "Rolling back", title, "Watch it", card, reason=build_headline(rollout)
            )
        if rollout.is_overdue:
            title = f"{label}: the rollout is overdue"
            reason = f"ECS still has it open. {build_headline(rollout)}"
            yield Item(Level.BAD, "overdue", "Overdue", title, "See why", card, reason=reason, at=rollout.deadline_at)
        elif rollout.is_stalled:
            title = f"{label}: the rollout has stalled"
            yield Item(
                Level.WARN,
                "stalled",
                "Stalled",
                title,
                "See why",
                card,
                reason=build_headline(rollout),
                line=newest_sentence(rollout),
                at=rollout.progressed_at,
            )


def name_services(rollouts: Iterable[Rollout]) -> str:
    """Return the services of rollouts as the beginning of a title: `Agent service, orchestrator`."""
    return capfirst(", ".join(inline_label(rollout.service) for rollout in rollouts))


def has_failed(rollout: Rollout) -> bool:
    return rollout.status == Status.FAILED and rollout.outcome not in NO_FAILURE


def describe_failures(organization: Organization, rows: list[RunningService]) -> Iterable[Item]:
    """Yield an item for each upgrade that failed for a service and that no later upgrade of it has followed."""
    failed: dict[str, list[Rollout]] = defaultdict(list)
    for row in rows:
        last = row.last_rollout
        if last and has_failed(last):
            last.upgrade.organization = organization
            failed[last.upgrade.upgrade_id].append(last)
    for rollouts in failed.values():
        first = rollouts[0]
        names = name_services(rollouts)
        what = "rollback" if first.upgrade.is_rollback else "upgrade"
        wanted = f" to {first.to_version}" if first.to_version else ""
        yield Item(
            Level.BAD,
            "failed",
            "Failed",
            f"{names}: the {what}{wanted} failed",
            "Next step",
            get_url(organization, first.upgrade, "#next"),
            reason=first.error_message or "",
            line=find_line(rollouts),
            at=first.completed_at,
        )


def find_line(rollouts: list[Rollout]) -> str:
    """Return the last error in the logs of the first service that has one; empty if none is known yet."""
    lines = [read_rollout_error(rollout, rollout.completed_at) for rollout in rollouts if rollout.completed_at]
    return next((line for line in lines if line), "")


def describe_trouble(organization: Organization, row: RunningService) -> Item:
    label, means = TROUBLE[row.state]
    counts = "" if row.desired_count is None else f" {row.running_count} of {row.desired_count} tasks run."
    return Item(
        Level.BAD,
        row.state,
        label,
        f"{row.label}: {means}",
        "See its upgrades",
        f"{reverse('upgrades:history', args=[organization.slug])}?service={row.service}",
        reason=f"ECS reports this now for {row.service_name}.{counts}",
    )


def describe_drift(organization: Organization, row: RunningService) -> Item:
    what = row.drift.what if row.drift else ""
    title = f"{row.label}: it does not run what was recorded"
    return Item(Level.WARN, "drifted", "Drift", title, "What to do", f"#drift-{row.service}", reason=what)


def find_unvalidated(organization: Organization, rows: list[RunningService]) -> Iterable[Item]:
    """Yield an item for each upgrade that a service still runs and that nobody has validated, or whose checks failed."""
    lasts = [row.last_rollout for row in rows if row.last_rollout and row.last_rollout.outcome in ROLLED_OUT]
    upgrades = {last.upgrade.pk: last.upgrade for last in lasts}
    open_ones = {
        pk: upgrade
        for pk, upgrade in upgrades.items()
        if upgrade.validation in (Validation.NEEDED, Validation.FAILED) and not upgrade.is_open
    }
    if not open_ones:
        return
    checks: dict[int, list[UpgradeCheck]] = defaultdict(list)
    found = UpgradeCheck.objects.filter(upgrade__in=list(open_ones), stage=Stage.VALIDATION)
    for check in found.exclude(status=CheckStatus.PASS).order_by("upgrade_id", "position"):
        checks[check.upgrade_id].append(check)
    for pk, upgrade in open_ones.items():
        names = name_services(last for last in lasts if last.upgrade_id == pk)
        yield describe_unvalidated(organization, upgrade, names, checks[pk])


def describe_unvalidated(organization: Organization, upgrade: Upgrade, names: str, checks: list[UpgradeCheck]) -> Item:
    url = get_url(organization, upgrade, "#validation")
    if upgrade.validation == Validation.FAILED:
        bad = [check for check in checks if check.status == CheckStatus.FAIL] or checks
        title = f"{names}: the validation failed"
        reason = f"Failed: {name_checks(bad)}."
        line = next((check.note or check.detail for check in bad if check.note or check.detail), "")
        return Item(Level.BAD, "failed", "Not valid", title, "See the checks", url, reason, line, upgrade.completed_at)
    due_at = (upgrade.completed_at or timezone.now()) + timedelta(seconds=settings.UPGRADE_VALIDATION_SECONDS)
    is_missing = due_at < timezone.now()
    return Item(
        Level.WARN,
        "pending",
        "Not validated",
        f"{names}: the validation is {'missing' if is_missing else 'due'}",
        "Sign the checks",
        url,
        reason=f"Rolled out, but not yet checked: {name_checks(checks)}.",
        at=upgrade.completed_at,
    )


def name_checks(checks: list[UpgradeCheck]) -> str:
    named = ", ".join(check.label for check in checks[:CHECKS_NAMED])
    more = len(checks) - CHECKS_NAMED
    return f"{named} and {more} more" if more > 0 else named


def find_news(organization: Organization, rows: list[RunningService], *, is_rolling: bool) -> Iterable[Item]:
    """Yield the newest release, unless a rollout is moving services just now."""
    newer = None if is_rolling else find_newer_version(organization, rows)
    # An item says already that this version failed.
    failed = {row.last_rollout.to_version for row in rows if row.last_rollout and has_failed(row.last_rollout)}
    if newer is None or newer.name in failed:
        return
    is_all = len(newer.services) == len(PlatformService)
    target = ALL_SERVICES if is_all else newer.services[0] if len(newer.services) == 1 else None
    query = {"service": target, "version": newer.name} if target else {"version": newer.name}
    runs = {row.service: row.version or "an unknown version" for row in rows}
    now = ", ".join(f"{inline_label(service)} {runs[service]}" for service in newer.services)
    yield Item(
        Level.NEWS,
        "newer",
        "New version",
        f"{newer.name} is available",
        "Plan the upgrade",
        f"{reverse('upgrades:new', args=[organization.slug])}?{urlencode(query)}",
        reason=f"Runs now: {now}.",
        at=newer.pushed_at,
    )
