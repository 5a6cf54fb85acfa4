"""Checks of what the portal works with: broker, cache, mail server, and its own background processes."""

import smtplib
from collections.abc import Iterator
from uuid import uuid4

from django.conf import settings
from django.core.cache import cache
from django.core.mail import get_connection
from redis import Redis
from redis.exceptions import RedisError

from portal.doctor.database import connect
from portal.doctor.findings import Finding, problem, warning
from portal.models.people import HEARTBEAT_FRESH_SECONDS
from portal.monitoring.health import broker_answers

KEEP_SECONDS = 10
SMTP = "django.core.mail.backends.smtp.EmailBackend"
SILENT = """
SELECT name, extract(epoch FROM statement_timestamp() - beat_at)::bigint FROM portal_heartbeat
WHERE beat_at <= statement_timestamp() - make_interval(secs => %s)
UNION ALL
SELECT name, NULL FROM unnest(ARRAY['scheduler', 'worker']) AS expected (name)
WHERE NOT EXISTS (SELECT FROM portal_heartbeat AS beat WHERE beat.name = expected.name)
ORDER BY name
"""
# What follows, and what to do.
SILENCE = {
    "scheduler": (
        warning,
        "Start `manage.py run_scheduler` under a supervisor; until then a worker does its jobs.",
    ),
    "worker": (
        problem,
        "Start `celery -A portal worker` under a supervisor, with the same CELERY_BROKER_URL and DATABASE_URL.",
    ),
}


def check_broker() -> Iterator[Finding]:
    """The broker must take messages. Without it changes are found later, by the scheduler's sweeps."""
    if not broker_answers():
        yield problem("The broker does not answer.", "Check CELERY_BROKER_URL, the network and the broker itself.")


def check_cache() -> Iterator[Finding]:
    """The cache must keep a value, also when its memory is full."""
    key = f"doctor:{uuid4()}"
    try:
        cache.set(key, "kept", KEEP_SECONDS)
        is_kept = cache.get(key) == "kept"
    except (RedisError, OSError) as error:
        advice = "Check CACHE_URL, the network and Redis itself: signing in needs the cache."
        yield problem(f"The cache does not answer ({type(error).__name__}).", advice)
        return
    if not is_kept:
        yield problem("The cache forgets a value that was just written.", "Look at its memory and eviction policy.")
    if "LOCATION" in settings.CACHES["default"]:
        yield from check_eviction(settings.CACHES["default"]["LOCATION"])


def check_eviction(url: str) -> Iterator[Finding]:
    """Redis must make room by itself when it is full. A server that does not say its policy is not judged."""
    with Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as server:
        try:
            memory = server.info("memory")
        except RedisError:
            return
    if memory.get("maxmemory") and memory.get("maxmemory_policy") == "noeviction":
        yield warning(
            "Redis refuses writes when its memory is full (noeviction), and no one could sign in then.",
            "Set its maxmemory-policy to volatile-ttl or allkeys-lru.",
        )


def check_mail() -> Iterator[Finding]:
    """The mail server must accept the portal, or no one is invited and no password reset."""
    if settings.EMAIL_BACKEND != SMTP:
        if not settings.LOCAL:
            yield warning("E-mail is not sent (EMAIL_URL names no mail server).", "Set EMAIL_URL to submission://...")
        return
    try:
        with get_connection(timeout=3):
            pass
    except (smtplib.SMTPException, OSError) as error:
        advice = "Check EMAIL_URL and the network: invitations and password resets are sent by e-mail."
        yield problem(f"The mail server does not accept the portal ({type(error).__name__}).", advice)


def check_processes() -> Iterator[Finding]:
    """A scheduler and a worker must have been heard of in the last half minute."""
    with connect() as raw:
        silent = raw.execute(SILENT, [HEARTBEAT_FRESH_SECONDS]).fetchall()
    for name, seconds in silent:
        if name in SILENCE:
            make, advice = SILENCE[name]
            since = "was never heard of" if seconds is None else f"is silent for {seconds} s"
            yield make(f"The {name} {since}.", advice)
