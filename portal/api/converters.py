"""Path converters of the API."""

from django.urls.converters import UUIDConverter


class AnyCaseUUIDConverter(UUIDConverter):
    """Accepts a UUID in either case, as RFC 9562 asks of readers. Addresses are made in lower case."""

    regex = "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"
