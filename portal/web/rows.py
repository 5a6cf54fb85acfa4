"""Jinja2, for the rows of long tables alone: there it takes an eighth of the time of Django's own templates.

A template `*.jinja` beside the page's own is included with `{% rows %}` (portal/templatetags/rows.py). It sees the context
of the page, and escapes like it.
"""

from functools import lru_cache
from typing import Any
from uuid import UUID

import jinja2
from django.urls import reverse

from portal.templatetags.formatting import clock, duration_until, exact, plain, render_time, without_ids, zoned_clock

NO_ID = UUID(int=0)


def environment(**options: Any) -> jinja2.Environment:
    """Return the environment of TEMPLATES. An unknown name is an error, unlike in Django's templates."""
    made = jinja2.Environment(**options | {"undefined": jinja2.StrictUndefined}, trim_blocks=True, lstrip_blocks=True)  # noqa: S701 - Django turns autoescape on
    made.filters |= {each.__name__: each for each in (exact, plain, clock, zoned_clock, duration_until, without_ids)}
    made.globals |= {"address": address, "url": url, "time": render_time}
    return made


def url(view_name: str, *arguments: object) -> str:
    """Return the address of a page, as the tag `{% url %}` does."""
    return reverse(view_name, args=arguments)


def address(view_name: str, slug: str, key: object) -> str:
    """Return the address of an organization's page whose last argument is the key, which needs no quoting."""
    before, after = split_address(view_name, slug, isinstance(key, UUID))
    return f"{before}{key}{after}"


@lru_cache(maxsize=512)
def split_address(view_name: str, slug: str, is_uuid: bool) -> tuple[str, str]:
    """Return the parts of a row's address before and after its key. To reverse the address of each row would be slow."""
    key = str(NO_ID) if is_uuid else "~key~"
    before, _, after = reverse(view_name, args=[slug, key]).partition(key)
    return before, after
