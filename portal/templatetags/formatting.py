"""Template filters for times and names, in every template. static/portal.js keeps ages current while a page is open.

Times are in the zone of the person (portal/times.py).
"""

import re
from datetime import date, datetime

from django import template
from django.utils import timezone
from django.utils.html import escape
from django.utils.safestring import SafeString

from portal.times import chosen_times, to_zone

register = template.Library()

MINUTE, HOUR, DAY = 60, 60 * 60, 24 * 60 * 60
DEPLOYMENT_ID = re.compile(r"\s+ecs-svc/\d+")
# What a user agent calls itself, in the order in which it counts: each browser also names those that it resembles.
BROWSERS = {"Edg/": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome", "Version/": "Safari"}
SYSTEMS = {
    "Windows": "Windows",
    "Android": "Android",
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Mac OS X": "macOS",
    "Linux": "Linux",
}


@register.filter
def ago(moment: datetime | None) -> str:
    """Return `just now`, `42 s ago`, `3 min ago`, `5 h ago` or `12 d ago`. Empty for None. The future is `just now`."""
    if moment is None:
        return ""
    seconds = int((timezone.now() - moment).total_seconds())
    if seconds < 2:
        return "just now"
    for unit, size in (("d", DAY), ("h", HOUR), ("min", MINUTE)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


@register.simple_tag(name="time")
def render_time(at: datetime | None, *, named: str = "") -> SafeString:
    """Render a time as the person reads it: its age, with the exact time on hover, or the date. Nothing for None.

    `named`: how the header X-Times of a 304 calls it, for a time that moves on while nothing else changes.
    """
    return build_time(at, ago(at), "data-relative", named)


@register.simple_tag(name="time_until")
def render_time_until(at: datetime | None) -> SafeString:
    """Render a coming time: how long until then, with the exact time on hover, or the date. Nothing for None."""
    return build_time(at, until(at), "data-until")


def build_time(at: datetime | None, relative: str, attribute: str, named: str = "") -> SafeString:
    """Return the element. portal.js keeps its text current by the attribute, which it lacks if the person reads dates."""
    if not at:
        return SafeString()
    text, attribute = (plain(at), "") if chosen_times().is_absolute else (relative, f" {attribute}")
    if named:
        attribute += f' data-name="{escape(named)}"'
    # Not with format_html, which looks for what to escape in each part: a table has a hundred times.
    return SafeString(f'<time datetime="{at.isoformat()}" title="{exact(at)}"{attribute}>{text}</time>')


@register.filter
def exact(at: datetime | None) -> str:
    """Return `2026-05-01 12:00:00 UTC`; empty for None."""
    if at is None:
        return ""
    zoned = to_zone(at)
    return f"{zoned.isoformat(' ', 'seconds')[:19]} {zoned.tzname()}"


@register.filter
def plain(at: datetime) -> str:
    """Return `2026-05-01 12:00:00`, for a place that names no zone: the foot of the page does."""
    return to_zone(at).isoformat(" ", "seconds")[:19]


@register.filter
def plain_minute(at: datetime) -> str:
    """Return `2026-05-01 12:00`, beside the name of the zone."""
    return plain(at)[:16]


@register.filter
def input_time(at: datetime) -> str:
    """Return `2026-05-01T12:00:00`, the value of an `<input type="datetime-local">` whose form also sends the zone."""
    return plain(at).replace(" ", "T")


@register.filter
def zone_at(at: datetime) -> str:
    """Return the short name of the person's zone at that time, such as `CET`."""
    return to_zone(at).tzname() or ""


@register.filter
def exact_minute(at: datetime | None) -> str:
    """Return `2026-05-01 12:00 UTC`; empty for None."""
    return f"{to_zone(at):%Y-%m-%d %H:%M %Z}" if at else ""


@register.filter
def clock(at: datetime | None) -> str:
    """Return `12:00:00`; empty for None."""
    return f"{to_zone(at):%H:%M:%S}" if at else ""


@register.filter
def zoned_clock(at: datetime | None) -> str:
    """Return `12:00:00 UTC`; empty for None."""
    return f"{to_zone(at):%H:%M:%S %Z}" if at else ""


@register.filter
def zoned_minute(at: datetime | None) -> str:
    """Return `12:00 UTC`; empty for None."""
    return f"{to_zone(at):%H:%M %Z}" if at else ""


@register.filter
def day(at: datetime) -> date:
    return to_zone(at).date()


@register.simple_tag
def current_time() -> datetime:
    return timezone.now()


@register.simple_tag
def zone_of_times() -> str:
    """Return the name of the person's zone."""
    return chosen_times().zone


@register.filter
def until(moment: datetime | None) -> str:
    """Return `in 42 s`, `in 12 min`, `in 2 h 10 min` or `in 12 d`. Empty for None. The past is `any moment now`."""
    if moment is None:
        return ""
    seconds = int((moment - timezone.now()).total_seconds())
    if seconds < 1:
        return "any moment now"
    if seconds >= DAY:
        return f"in {seconds // DAY} d"
    return f"in {duration(seconds if seconds < MINUTE else seconds - seconds % MINUTE)}"


@register.filter
def duration(seconds: float | None) -> str:
    """Return `42 s`, `3 min 5 s`, `7 min` or `2 h 10 min`; empty for None."""
    if seconds is None:
        return ""
    whole = max(0, int(seconds))
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s".removesuffix(" 0 s")
    return f"{whole // HOUR} h {whole % HOUR // MINUTE} min".removesuffix(" 0 min")


@register.filter
def duration_until(begin: datetime | None, end: datetime | None) -> str:
    """Return the time from begin to end like `duration`; empty if either is None."""
    return duration((end - begin).total_seconds()) if begin and end else ""


@register.filter
def duration_since(begin: datetime | None) -> str:
    """Return the time from begin until now like `duration`."""
    return duration_until(begin, timezone.now())


@register.filter
def without_ids(sentence: str) -> str:
    """Return a sentence of the portal about ECS without the id of the deployment.

    >>> without_ids("ECS deployment ecs-svc/1257226665140559640 in progress.")
    'ECS deployment in progress.'
    """
    return DEPLOYMENT_ID.sub("", sentence)


@register.filter
def browser(user_agent: str | None) -> str:
    """Return browser and system by name; the beginning of what is neither, such as a script's.

    >>> browser("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36")
    'Chrome 156 on Linux'
    >>> browser("curl/8.5.0"), browser(None)
    ('curl/8.5.0', 'unknown')
    """
    text = user_agent or ""
    named = next((match for match in map(text.partition, BROWSERS) if match[1]), None)
    system = next((name for part, name in SYSTEMS.items() if part in text), None)
    if named is None:
        return text[:60] or "unknown"
    version = named[2].partition(".")[0].partition(" ")[0]
    return f"{BROWSERS[named[1]]} {version}{f' on {system}' if system else ''}"


@register.filter
def last_part(arn: str | None) -> str:
    """Return the resource name at the end of an ARN.

    >>> last_part("arn:aws:ecs:eu-central-1:111111111111:task-definition/acme-prod-agent:42")
    'acme-prod-agent:42'
    """
    return (arn or "").rpartition("/")[2]
