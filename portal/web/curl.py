"""Builds the curl command for the API call that matches a page or its form."""

import json
from shlex import quote
from typing import Any
from urllib.parse import urlencode, urlsplit

# Placeholders, never the person's own session, because the command may be pasted into a chat.
COOKIES = "cookies.txt"
CSRF_HEADER = '-H "X-CSRFToken: $CSRF"'


def curl_command(url: str, *, method: str, organization: str, fields: dict[str, Any]) -> str:
    """Return the command as one line for a POSIX shell. The shell expands only `$CSRF`.

    `fields` are the query of a GET, else the JSON body. Empty values are omitted, and in a query also 0.
    """
    parts = ["curl", "-b", COOKIES, "-H", quote(f"X-Organization: {organization}")]
    if method == "GET":
        query = urlencode({name: value for name, value in fields.items() if value})
        return " ".join([*parts, quote(f"{url}?{query}" if query else url)])
    parts += ["-X", method, CSRF_HEADER]
    if urlsplit(url).scheme == "https":
        # Django checks the origin of an unsafe request over HTTPS.
        parts += ["-H", quote(f"Origin: https://{urlsplit(url).netloc}")]
    body = {name: value for name, value in fields.items() if value not in (None, "")}
    if body:
        parts += ["-H", quote("Content-Type: application/json"), "-d", quote(json.dumps(body, default=str))]
    return " ".join([*parts, quote(url)])
