"""AWS credentials and clients: one session per target, with its role assumed; all share one loader of botocore's models.

Timeouts are short because pages and leases wait on these calls. Reads are retried by botocore's standard mode, which
AWS's SDK reference calls safe for several tenants. Writes are made exactly once; the engine decides what to do afterwards.
A role is assumed before a call, not inside it, by one thread for all that wait for it.
"""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import boto3
from botocore.config import Config
from botocore.credentials import DeferredRefreshableCredentials, ReadOnlyCredentials
from botocore.loaders import create_loader
from botocore.session import get_session
from botocore.utils import parse_timestamp

from portal.aws.errors import complete, need
from portal.aws.observed import OWN_ACCOUNT, observe
from portal.aws.permissions import Scope, Use, build_session_policy

# The shortest that AWS offers: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html. A new session is
# made in the background from five minutes before the end, and waited for in the last two, so no call is cut.
SESSION_SECONDS = 900
RENEW_SECONDS, RENEW_BY_SECONDS = 300, 120
CONNECT_TIMEOUT_SECONDS = 2
READ_TIMEOUT_SECONDS = 5
WRITE_TIMEOUT_SECONDS = 10
# A page waits for these calls (portal/aws/bulkhead.py), and everything waits for a role. They are not retried: if one
# fails, the page shows the last data with its age. Their sum is less than the time that the page waits.
SHORT_CONNECT_SECONDS, PAGE_READ_SECONDS, LIVE_READ_SECONDS = 1, 2.5, 3
MAX_TARGETS = 200


@dataclass(frozen=True)
class AwsTarget:
    """An AWS region and the role to assume there. Without a role, the portal's own credential chain is used.

    `cluster` limits the session. `reader` and `writer` name the sessions of reads and writes in CloudTrail.
    """

    region: str
    role_arn: str | None = None
    external_id: str | None = None
    cluster: str | None = None
    reader: str = "operations-portal"
    writer: str = "operations-portal"


@dataclass(frozen=True)
class AwsSession:
    """The values that identify a session. Calls with the same values share it. `policy` is its session policy, as JSON."""

    region: str
    role_arn: str | None = None
    external_id: str | None = None
    name: str = "operations-portal"
    policy: str | None = None


@dataclass
class _TargetSession:
    """One target's session and clients. The role is assumed once for all of them.

    `lock` is held while a client is created, never during a call. `assuming`: the assumption in progress.
    """

    session: boto3.Session
    clients: dict[tuple[str, str, ReadOnlyCredentials | None], Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    assuming: "Future[None] | None" = None


# The services that the portal calls; their models are the same in each region.
SERVICES, ANY_REGION = ("cloudwatch", "ecr", "ecs", "logs", "sts"), "eu-central-1"
# Shared by all sessions: reading a service's model takes 10 MB and 0.2 seconds, and nothing in it depends on the session.
_loader = create_loader()
_target_sessions: dict[AwsSession, _TargetSession] = {}
_lock = threading.Lock()
_has_short_timeouts: ContextVar[bool] = ContextVar("has_short_timeouts", default=False)


@contextlib.contextmanager
def short_timeouts() -> Iterator[None]:
    """Give the reads in this block the time-outs of pages."""
    token = _has_short_timeouts.set(True)
    try:
        yield
    finally:
        _has_short_timeouts.reset(token)


def has_short_timeouts() -> bool:
    return _has_short_timeouts.get()


def client(target: AwsTarget, service: str, *, writes: bool = False, scope: Scope | None = None) -> Any:
    """Return a cached boto3 client whose session may do what `scope` says; without one, read the target's cluster.

    The role is assumed here instead of inside the call. With `writes=True` the client never retries, and the call takes no
    longer than its own timeouts. Raises botocore's errors.
    """
    reads = "page reads" if _has_short_timeouts.get() else "reads"
    return _client(target, service, "writes" if writes else reads, scope)


def live_client(target: AwsTarget, service: str, *, scope: Scope | None = None) -> Any:
    """Return a cached boto3 client for reads of pages: short timeouts, no retries. Raises botocore's errors."""
    return _client(target, service, "live", scope)


def find_session(target: AwsTarget, scope: Scope | None = None) -> AwsSession:
    """Return which session a call uses. The portal's own credentials have one for each region."""
    if not target.role_arn:
        return AwsSession(target.region)
    limits = scope or Scope(cluster=target.cluster)
    name = target.writer if limits.use in (Use.SERVICE, Use.DEFINITION) else target.reader
    policy = build_session_policy(target.role_arn, target.region, limits)
    return AwsSession(target.region, target.role_arn, target.external_id, name, policy)


def _client(target: AwsTarget, service: str, manner: str, scope: Scope | None = None) -> Any:
    target_session = _get_target_session(find_session(target, scope))
    if target.role_arn:
        _assume_once(target_session)
    fixed = _fresh_credentials(target_session.session) if manner == "writes" else None
    key = (service, manner, fixed)
    with target_session.lock:
        if key not in target_session.clients:
            # Drop the client that signs with the previous credentials.
            target_session.clients = {old: made for old, made in target_session.clients.items() if old[:2] != key[:2]}
            target_session.clients[key] = target_session.session.client(
                service,
                config=CONFIGS[manner],
                aws_access_key_id=fixed and fixed.access_key,
                aws_secret_access_key=fixed and fixed.secret_key,
                aws_session_token=fixed and fixed.token,
            )
            account = target.role_arn.split(":")[4] if target.role_arn else OWN_ACCOUNT
            observe(target_session.clients[key], account, target.region, writes=manner == "writes")
        return target_session.clients[key]


def drop_session(target: AwsTarget) -> None:
    """Drop all sessions of the target's role, so that the next call assumes it again with the newest credentials."""
    with _lock:
        for session in list(_target_sessions):
            if session.role_arn in (target.role_arn, None):
                del _target_sessions[session]


def assume_role(session: AwsSession) -> dict[str, str]:
    """Call AssumeRole and return the result in the form of botocore's refreshable credentials.

    Raises botocore's errors, and AwsUnavailable if the reply lacks a part of the credentials.
    """
    sts = _client(AwsTarget(session.region), "sts", "page reads")
    parameters: dict[str, Any] = {
        "RoleArn": session.role_arn,
        "RoleSessionName": session.name,
        "DurationSeconds": SESSION_SECONDS,
        "Policy": session.policy,
    }
    if session.external_id:
        parameters["ExternalId"] = session.external_id
    reply = sts.assume_role(**parameters)
    with complete("sts:AssumeRole"):
        issued = reply["Credentials"]
        return {
            "access_key": need(issued, "AccessKeyId"),
            "secret_key": need(issued, "SecretAccessKey"),
            "token": need(issued, "SessionToken"),
            "expiry_time": need(issued, "Expiration").isoformat(),
        }


def _get_target_session(wanted: AwsSession) -> _TargetSession:
    """Return the session's clients. At MAX_TARGETS, the least recently used one is dropped."""
    with _lock:
        found = _target_sessions.pop(wanted, None)
        if found is None:
            if len(_target_sessions) >= MAX_TARGETS:
                _target_sessions.pop(next(iter(_target_sessions)))
            found = _TargetSession(_session(wanted))
        _target_sessions[wanted] = found
        return found


def load_models() -> None:
    """Read botocore's models of the services, some 10 MB, so that processes forked after this share them. No request."""
    session = _session(AwsSession(region=ANY_REGION))
    for service in SERVICES:
        session.client(service, aws_access_key_id="none", aws_secret_access_key="none")  # noqa: S106 - nothing is sent


def _session(wanted: AwsSession) -> boto3.Session:
    """Create a session. Cheap: it reads no file and makes no request until a client is created."""
    botocore_session = get_session()
    if wanted.role_arn:
        credentials = DeferredRefreshableCredentials(
            refresh_using=lambda: assume_role(wanted), method="sts-assume-role"
        )
        # botocore has no public way to set custom refreshable credentials; setting these attributes is common practice.
        # Its own times would renew a session of 15 minutes at each call.
        credentials._advisory_refresh_timeout, credentials._mandatory_refresh_timeout = RENEW_SECONDS, RENEW_BY_SECONDS
        botocore_session._credentials = credentials
    session = boto3.Session(botocore_session=botocore_session, region_name=wanted.region)
    # Must come after boto3.Session, which adds its own folder to the loader it finds.
    botocore_session.register_component("data_loader", _loader)
    botocore_session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_parse_timestamp)
    return session


def _parse_timestamp(value: Any) -> datetime:
    """Return a time of a reply, in UTC. botocore's parser asks for the machine's time zone each time: 28 times slower."""
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, UTC)
    return cast(datetime, parse_timestamp(value))


def _assume_once(target_session: _TargetSession) -> None:
    """Assume the role unless its credentials are fresh. One thread makes the call; the others share its result or error.

    While the present credentials are valid for RENEW_BY_SECONDS or more, the others use these and do not wait.
    """
    credentials = target_session.session.get_credentials()
    if not credentials.refresh_needed():
        return
    with target_session.lock:
        assuming = target_session.assuming
        if assuming is None:
            ours = target_session.assuming = Future[None]()
    if assuming is not None:
        if credentials.refresh_needed(RENEW_BY_SECONDS):
            assuming.result()
        return
    try:
        credentials.get_frozen_credentials()
    except BaseException as error:
        ours.set_exception(error)
        raise
    else:
        ours.set_result(None)
    finally:
        target_session.assuming = None


def _fresh_credentials(session: boto3.Session) -> ReadOnlyCredentials | None:
    """Return the current credentials, refreshed if they expire soon.

    Returns None when the portal has no credentials; the call itself then raises the error.
    """
    credentials = session.get_credentials()
    return credentials.get_frozen_credentials() if credentials else None


def _config(connect: float, read: float, *, attempts: int) -> Config:
    return Config(
        connect_timeout=connect,
        read_timeout=read,
        retries={"total_max_attempts": attempts, "mode": "standard"},
        user_agent_appid="operations-portal",
    )


CONFIGS = {
    "reads": _config(CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS, attempts=2),
    "writes": _config(CONNECT_TIMEOUT_SECONDS, WRITE_TIMEOUT_SECONDS, attempts=1),
    "page reads": _config(SHORT_CONNECT_SECONDS, PAGE_READ_SECONDS, attempts=1),
    "live": _config(SHORT_CONNECT_SECONDS, LIVE_READ_SECONDS, attempts=1),
}
