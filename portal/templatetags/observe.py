"""Template tags and filters of pages with a time window, charts and logs: `{% load observe %}`."""

import re
from datetime import datetime
from typing import Any

from django import template
from django.http import QueryDict
from django.utils import timezone
from django.utils.html import conditional_escape, format_html, format_html_join
from django.utils.safestring import SafeString

from portal.cloudwatch.records import Record
from portal.web.observe.changes import Change
from portal.web.observe.time_window import around_line, as_text, spanning

register = template.Library()

# The query parameters that each region of such a page owns. static/deployments.js has the same list.
OWNED = {
    "window": ("range", "since", "until", "zone", "at"),
    "timeline": ("event_type", "status", "skip"),
    "logs": ("q", "level", "task", "order", "follow", "line", "cursor"),
}
KEPT = ("whole", "list")


@register.simple_tag(takes_context=True)
def part(context: dict[str, Any], regions: str, anchor: str = "", **changes: Any) -> SafeString:
    """Return the attributes of a link that changes what a region shows: its full address, and htmx for only that region.

    `regions` names the regions whose parameters the link sets. The first one is swapped. None drops a parameter.
    """
    query = context["request"].GET.copy()
    for name, value in changes.items():
        if value is None:
            query.pop(name, None)
        else:
            query[name] = str(value)
    address = f"{context['here']}?{query.urlencode()}{anchor}"
    return format_html(
        'href="{}" data-sets="{}" hx-get="{}" hx-target="#{}" hx-swap="outerHTML" hx-push-url="true"',
        address,
        regions,
        address,
        regions.split()[0],
    )


@register.simple_tag(takes_context=True)
def record_link(context: dict[str, Any], record: Record) -> SafeString:
    """Return the attributes of a link to one log record: the window around it, without any filter of the logs."""
    near = around_line(record.timestamp)
    shown = {"line": record.id, "since": near.since, "until": near.until, "at": record.timestamp.isoformat()}
    dropped = {name: None for name in (*OWNED["window"], *OWNED["logs"]) if name not in shown and name != "order"}
    return part(context, "window logs", f"#L{record.id}", **shown, **dropped)


@register.simple_tag(takes_context=True)
def change_link(context: dict[str, Any], change: Change) -> SafeString:
    """Return the attributes of a link that moves the window to the time of a change, and shortly before and after it."""
    window = spanning(change.began, change.ended, now=timezone.now())
    until = None if window.is_live else as_text(window.until)
    return part(context, "window", since=as_text(window.since), until=until, range=None, zone=None, at=None, skip=None)


@register.simple_tag(takes_context=True)
def region_inputs(context: dict[str, Any], region: str) -> SafeString:
    """Return hidden fields with another region's parameters, for a form that is sent without JavaScript.

    Those of `timeline`, which every form has, include what no region owns.
    """
    query: QueryDict = context["request"].GET
    names = [name for name in (*OWNED[region], *(KEPT if region == "timeline" else ())) if query.get(name)]
    return format_html_join("", '<input type="hidden" name="{}" value="{}">', ((name, query[name]) for name in names))


@register.filter
def highlight(message: str, text: str) -> SafeString:
    """Return the escaped message with each occurrence of the text marked, ignoring case."""
    if not text:
        return conditional_escape(str(message))
    pieces = re.split(f"({re.escape(text)})", str(message), flags=re.IGNORECASE)
    return format_html_join(
        "",
        "{}{}",
        (
            (before, format_html("<mark>{}</mark>", found) if found else "")
            for before, found in zip(pieces[::2], [*pieces[1::2], ""], strict=True)
        ),
    )


@register.filter
def milliseconds(at: datetime) -> str:
    return f"{at.microsecond // 1000:03}"
