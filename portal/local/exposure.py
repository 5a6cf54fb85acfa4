"""Keeps a demo, and a portal with DEBUG=1, on its own machine, because passwords and key are published.

Both accept only loopback: names in ALLOWED_HOSTS, the address that the web server listens on, and, whatever the server,
the address that a request comes from. DEMO_EXPOSED=1 switches this off and is logged at each start. settings.py loads
this module, so it imports Django only inside a function.
"""

import os
import sys
from ipaddress import ip_address
from typing import Any

DEMO_STAYS_HOME = (
    "DEMO=1 has known passwords and a known key, and DEBUG=1 shows the portal's code, so both serve only this machine. "
    "Set DEMO_EXPOSED=1 if others may reach it (docs/configuration.md)."
)
EXPOSED = "DEMO_EXPOSED=1: whoever reaches this portal can use the demo's published passwords and key."
# Reserved for tests and for this machine: https://www.rfc-editor.org/rfc/rfc6761. Django's test client is `testserver`.
LOCAL_NAMES = {"localhost", "testserver"}


def is_local_name(name: str) -> bool:
    """Return whether an entry of ALLOWED_HOSTS means this machine only.

    >>> [is_local_name(name) for name in ("127.0.0.1", "[::1]", ".localhost", "portal.example", "*", "0.0.0.0")]
    [True, True, True, False, False, False]
    """
    host = name.lower().strip(".")
    return host in LOCAL_NAMES or host.endswith(".localhost") or is_loopback(host)


def is_loopback(address: str) -> bool:
    """Return whether an IP address, also in brackets, is one of this machine's loopback addresses."""
    try:
        parsed = ip_address(address.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def on_starting(server: Any) -> None:
    """End gunicorn if a demo would listen on more than loopback and Unix sockets. A gunicorn server hook."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    from django.conf import settings  # this module is loaded before the settings

    if not settings.LOCAL or settings.DEMO_EXPOSED:
        return
    public = [each[0] for each in server.address if isinstance(each, tuple) and not is_local_name(each[0])]
    if public:
        sys.exit(f"gunicorn would listen on {', '.join(public)}. {DEMO_STAYS_HOME}")
