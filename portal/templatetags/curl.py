"""The tag `{% curl "GET" "upgrade-history" status=filters.status %}`: the page's request as a curl command to copy."""

from typing import Any

from django import template
from django.urls import reverse

from portal.web.curl import curl_command

register = template.Library()


@register.inclusion_tag("_curl.html", takes_context=True)
def curl(context: dict[str, Any], method: str, route: str, *args: Any, **fields: Any) -> dict[str, Any]:
    """Render the command, with buttons that copy it, and for a page the link to it and the id that it shows.

    `route` is the URL name of the API route or CSV file, `args` its arguments, `fields` query or body.
    """
    url = context["request"].build_absolute_uri(reverse(route, args=args))
    organization = context["organization"].slug
    command = curl_command(url, method=method, organization=organization, fields=fields)
    is_read = method == "GET"
    return {
        "command": command,
        "name": f"curl-{method.lower()}-{route}",
        "key": str(args[0]) if is_read and args and args[0] != organization else "",
        "is_page": is_read,
    }
