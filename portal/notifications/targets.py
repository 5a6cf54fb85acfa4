"""Validates the syntax of targets when they are saved.

portal/outbound.py decides at each send whether the address may be reached, because a name can later resolve elsewhere.
"""

import re

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from portal import outbound
from portal.models.notifications import ChannelKind

MAX_ADDRESSES = 5
MAX_ADDRESS_LENGTH = 254


def read_target(kind: ChannelKind, text: str) -> str:
    """Return the target in its stored form. Raises ValidationError."""
    return read_addresses(text) if kind == ChannelKind.EMAIL else read_url(text)


def read_url(text: str) -> str:
    url = text.strip()
    try:
        outbound.parse(url)
    except outbound.OutboundRefused as error:
        raise ValidationError(str(error)) from error
    return url


def read_addresses(text: str) -> str:
    """Return the e-mail addresses of a text that separates them by commas, semicolons or spaces, without duplicates."""
    found = {address.lower(): address for address in re.split(r"[,;\s]+", text) if address}
    if not 1 <= len(found) <= MAX_ADDRESSES:
        raise ValidationError(f"Enter 1 to {MAX_ADDRESSES} addresses, not {len(found)}.")
    for address in found.values():
        try:
            validate_email(address)
        except ValidationError:
            raise ValidationError(f"{address[:80]} is not an e-mail address.") from None
        if len(address) > MAX_ADDRESS_LENGTH:
            raise ValidationError(f"{address[:80]}… is longer than {MAX_ADDRESS_LENGTH} characters.")
    return ",".join(found.values())
