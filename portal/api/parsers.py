"""The parser of API request bodies. A separate module, because DRF imports it by name."""

from typing import Any

from django.conf import settings
from rest_framework import parsers
from rest_framework.exceptions import ParseError
from rest_framework.utils import json

from portal.errors import too_many_keys

# The most members of an object, at any depth. The largest that a route takes is an agent's environment of 100 variables.
MAX_OBJECT_KEYS = 200


class JSONParser(parsers.JSONParser):
    """A JSON parser that answers 400 if the body is nested too deeply for Python."""

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        """Return the parsed body. Raises ParseError (400), and PortalError 400 `too_many_keys` for a huge object."""
        encoding = (parser_context or {}).get("encoding", settings.DEFAULT_CHARSET)
        try:
            return json.loads(stream.read().decode(encoding), object_pairs_hook=bounded_object)
        except RecursionError as error:
            raise ParseError("JSON parse error - nested too deeply.") from error
        except ValueError as error:
            raise ParseError(f"JSON parse error - {error}") from error


def bounded_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object's members. Raises PortalError 400 before the portal's code goes through too many of them."""
    if len(pairs) > MAX_OBJECT_KEYS:
        raise too_many_keys(len(pairs), MAX_OBJECT_KEYS)
    return dict(pairs)
