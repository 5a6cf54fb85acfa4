"""Times and names in few words; static/portal.js says the same of times while a page stands open."""

from datetime import datetime

from django import template
from django.utils import timezone

register = template.Library()

MINUTE, HOUR, DAY = 60, 60 * 60, 24 * 60 * 60


@register.filter
def ago(moment: datetime | None) -> str:
    """`just now`, `42 s ago`, `3 min ago`, `5 h ago`, `12 d ago`; empty for None. A moment to come is `just now`."""
    if moment is None:
        return ""
    seconds = int((timezone.now() - moment).total_seconds())
    if seconds < 2:
        return "just now"
    for unit, size in (("d", DAY), ("h", HOUR), ("min", MINUTE)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


@register.filter
def duration(seconds: float | None) -> str:
    """`42 s`, `3 min 5 s`, `7 min`, `2 h 10 min`; empty for None."""
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
    """The time from begin to end as `duration`; empty while one of them is not known."""
    return duration((end - begin).total_seconds()) if begin and end else ""


@register.filter
def duration_since(begin: datetime | None) -> str:
    """The time from begin until now as `duration`."""
    return duration_until(begin, timezone.now())


@register.filter
def last_part(arn: str | None) -> str:
    """What an ARN names, without where it is.

    >>> last_part("arn:aws:ecs:eu-central-1:111111111111:task-definition/acme-prod-agent:42")
    'acme-prod-agent:42'
    """
    return (arn or "").rpartition("/")[2]
