"""The choice of the renderer of API responses. A separate module, because DRF imports it by name."""

from collections.abc import Iterable
from typing import Any

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

PLAIN = ("*/*", "application/json")


class JSONNegotiation(DefaultContentNegotiation):
    """DRF's choice, without parsing the Accept header of a client that accepts anything or just JSON."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> Any:
        known = list(renderers)
        if len(known) == 1 and format_suffix is None and request.headers.get("Accept", "*/*") in PLAIN:
            return known[0], known[0].media_type
        return super().select_renderer(request, known, format_suffix)
