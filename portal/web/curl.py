"""What a page shows or its form sends, as the curl command for the same route of the API."""

import json
from shlex import quote
from typing import Any
from urllib.parse import urlencode, urlsplit

# Placeholders, never the reader's own session: the command may end up in a chat.
COOKIES = "cookies.txt"
CSRF_HEADER = '-H "X-CSRFToken: $CSRF"'


def curl_command(url: str, *, method: str, organization: str, fields: dict[str, Any]) -> str:
    """One line for a POSIX shell, in which only `$CSRF` is left to the shell.

    `fields` are the query of a GET, else the JSON body; of a query what is empty or 0 is left out, of a body what is empty.
    """
    parts = ["curl", "-b", COOKIES, "-H", quote(f"X-Organization: {organization}")]
    if method == "GET":
        query = urlencode({name: value for name, value in fields.items() if value})
        return " ".join([*parts, quote(f"{url}?{query}" if query else url)])
    parts += ["-X", method, CSRF_HEADER]
    if urlsplit(url).scheme == "https":
        # Django asks where an unsafe request over HTTPS comes from.
        parts += ["-H", quote(f"Origin: https://{urlsplit(url).netloc}")]
    body = {name: value for name, value in fields.items() if value not in (None, "")}
    if body:
        parts += ["-H", quote("Content-Type: application/json"), "-d", quote(json.dumps(body, default=str))]
    return " ".join([*parts, quote(url)])
