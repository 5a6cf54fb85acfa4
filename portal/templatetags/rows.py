"""The tag `{% rows "deployments/_table_rows.jinja" %}`: the rows of a table, rendered by Jinja2 (portal/web/rows.py)."""

from typing import Any, cast

from django import template
from django.template import Context
from django.template.loader import get_template
from django.utils.safestring import SafeString, mark_safe

register = template.Library()


@register.simple_tag(takes_context=True)
def rows(context: Context, name: str) -> SafeString:
    """Render the template with the context of the page. It escapes all values itself."""
    values = cast(dict[str, Any], context.flatten())
    return mark_safe(get_template(name, using="jinja2").render(values))  # noqa: S308
