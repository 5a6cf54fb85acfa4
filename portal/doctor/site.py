"""Checks of the settings: Django's own ones for a deployment, and what they do not know of."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.http.request import validate_host

from portal.doctor.findings import Finding, problem, warning
from portal.local.exposure import is_local_name

CONFIGURATION = "docs/configuration.md describes it."
SHORTEST_TOKEN = 16
NOT_A_SENDER = "portal@localhost"


def check_settings() -> Iterator[Finding]:
    """The settings must be those of a production site. A demo's never are."""
    if settings.DEBUG:
        yield problem("DEBUG=1 shows code and settings to everybody who causes an error.", "Remove DEBUG.")
    if settings.DEMO:
        make = problem if settings.DEMO_EXPOSED else warning
        yield make("DEMO=1: the people's passwords and the key are published.", "Remove DEMO on a site with real data.")
        return
    for message in checks.run_checks(include_deployment_checks=True):
        if message.level >= checks.WARNING and not message.is_silenced():
            make = problem if message.level >= checks.ERROR or "SECRET_KEY" in message.msg else warning
            yield make(f"{message.msg} ({message.id})", message.hint or CONFIGURATION)
    yield from check_addresses()
    yield from check_secrets()


def check_addresses() -> Iterator[Finding]:
    """Yield what is wrong with the names under which people reach the portal."""
    if "*" in settings.ALLOWED_HOSTS:
        yield problem("ALLOWED_HOSTS accepts every name.", "List the names of this site, such as portal.example.")
    if not settings.PORTAL_URL:
        yield warning("PORTAL_URL is empty, so notifications have no links.", "Set it, such as https://portal.example.")
    else:
        address = urlsplit(settings.PORTAL_URL)
        if address.scheme != "https":
            yield warning("PORTAL_URL is not https.", "Use the address that people open.")
        if not validate_host(address.hostname or "", settings.ALLOWED_HOSTS):
            yield problem(f"ALLOWED_HOSTS lacks {address.hostname}, the host of PORTAL_URL.", "Add it.")
    if not settings.TRUSTED_PROXY_COUNT:
        yield warning(
            "TRUSTED_PROXY_COUNT is 0, so all people behind a proxy share its address and its sign-in attempts.",
            "Set it to the number of proxies in front of the portal.",
        )
    if settings.DEFAULT_FROM_EMAIL == NOT_A_SENDER:
        advice = "Set it to an address of your domain."
        yield warning(f"DEFAULT_FROM_EMAIL is {NOT_A_SENDER}, which mail servers refuse.", advice)


def check_secrets() -> Iterator[Finding]:
    """Yield which secret is weak, and which connection over a network is not encrypted."""
    if 0 < len(settings.METRICS_TOKEN) < SHORTEST_TOKEN:
        yield warning("METRICS_TOKEN can be guessed.", f"Use {SHORTEST_TOKEN} random characters or more.")
    named = settings.DATABASES["default"]
    host = named.get("HOST") or named["OPTIONS"].get("host", "")
    if leaves_machine(host) and named["OPTIONS"].get("sslmode") not in ("verify-full", "verify-ca"):
        yield warning(
            "The connection to PostgreSQL is not surely encrypted, or its server not checked.",
            "Add sslmode=verify-full and sslrootcert to DATABASE_URL.",
        )
    for name, url in (
        ("CELERY_BROKER_URL", settings.CELERY_BROKER_URL),
        ("CACHE_URL", settings.CACHES["default"].get("LOCATION", "")),
    ):
        address = urlsplit(url)
        if address.scheme in ("redis", "amqp") and leaves_machine(address.hostname or ""):
            yield warning(f"The connection of {name} is not encrypted.", f"Use {address.scheme}s:// and a password.")
    if settings.EMAIL_HOST_PASSWORD and not (settings.EMAIL_USE_TLS or settings.EMAIL_USE_SSL):
        yield warning("The password of the mail server is sent unencrypted.", "Use submission:// in EMAIL_URL.")


def leaves_machine(host: str) -> bool:
    """Return whether a connection to the host uses a network. A path is a socket of this machine.

    >>> [leaves_machine(host) for host in ("", "/run/postgresql", "localhost", "10.1.2.3", "db.example")]
    [False, False, False, True, True]
    """
    return bool(host) and not host.startswith("/") and not is_local_name(host)
