"""The tag `{% saved_views "deployments" %}`: the saved views of a list, as links above it."""

from typing import Any

from django import template

from portal.saved_views.lists import clean_query, get_address

register = template.Library()


@register.inclusion_tag("portal/saved_views/_links.html", takes_context=True)
def saved_views(context: dict[str, Any], listed: str) -> dict[str, Any]:
    """Return the views that `open_list` read, with the one whose filters are in the URL."""
    request, organization = context["request"], context["organization"]
    shown = clean_query(request.META["QUERY_STRING"])
    links = [(view, get_address(organization, listed, view.query), view.query == shown) for view in request.saved_views]
    return {"organization": organization, "links": links, "unfiltered": request.path, "is_unfiltered": not shown}
