"""AWS credentials and clients: one session per target, with its role assumed; all share one loader of botocore's models.

Timeouts are short because pages and leases wait on these calls. Reads are retried by botocore's standard mode, which
AWS's SDK reference calls safe for several tenants. Writes are made exactly once; the engine decides what to do afterwards.
"""

import threading
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config
from botocore.credentials import DeferredRefreshableCredentials, ReadOnlyCredentials
from botocore.loaders import create_loader
from botocore.session import get_session

from portal.aws.errors import complete, need
from portal.aws.observed import OWN_ACCOUNT, observe

SESSION_SECONDS = 3600
CONNECT_TIMEOUT_SECONDS = 2
READ_TIMEOUT_SECONDS = 5
WRITE_TIMEOUT_SECONDS = 10
# A page waits for these reads. They are not retried: if one fails, the page shows the last data with its age.
LIVE_CONNECT_SECONDS, LIVE_READ_SECONDS = 1, 4
MAX_TARGETS = 200


@dataclass(frozen=True)
class AwsTarget:
    """An AWS region and the role to assume there. Without a role, the portal's own credential chain is used."""

    region: str
    role_arn: str | None = None
    external_id: str | None = None


@dataclass
class _TargetSession:
    """One target's session and clients. The role is assumed once for all of them; `lock` is held while one is created."""

    session: boto3.Session
    clients: dict[tuple[str, str, ReadOnlyCredentials | None], Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


# Shared by all sessions: reading a service's model takes 10 MB and 0.2 seconds, and nothing in it depends on the session.
_loader = create_loader()
_target_sessions: dict[AwsTarget, _TargetSession] = {}
_lock = threading.Lock()


def client(target: AwsTarget, service: str, *, writes: bool = False) -> Any:
    """Return a cached boto3 client.

    With `writes=True` the client never retries, and the role is assumed here instead of inside the call. The call
    therefore takes no longer than its own timeouts. Raises botocore's errors.
    """
    return _client(target, service, "writes" if writes else "reads")


def live_client(target: AwsTarget, service: str) -> Any:
    """Return a cached boto3 client for reads of pages: short timeouts, no retries. Raises botocore's errors."""
    return _client(target, service, "live")


def _client(target: AwsTarget, service: str, manner: str) -> Any:
    target_session = _get_target_session(target)
    # Outside the lock, so that readers do not wait for an AssumeRole.
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
    """Drop the target's session and clients, so that the next call assumes the role again with the newest credentials."""
    with _lock:
        _target_sessions.pop(target, None)
        _target_sessions.pop(AwsTarget(target.region), None)


def assume_role(target: AwsTarget) -> dict[str, str]:
    """Call AssumeRole and return the result in the form of botocore's refreshable credentials.

    Raises botocore's errors, and AwsUnavailable if the reply lacks a part of the credentials.
    """
    sts = client(AwsTarget(target.region), "sts")
    parameters: dict[str, Any] = {
        "RoleArn": target.role_arn,
        "RoleSessionName": "operations-portal",
        "DurationSeconds": SESSION_SECONDS,
    }
    if target.external_id:
        parameters["ExternalId"] = target.external_id
    reply = sts.assume_role(**parameters)
    with complete("sts:AssumeRole"):
        issued = reply["Credentials"]
        return {
            "access_key": need(issued, "AccessKeyId"),
            "secret_key": need(issued, "SecretAccessKey"),
            "token": need(issued, "SessionToken"),
            "expiry_time": need(issued, "Expiration").isoformat(),
        }


def _get_target_session(target: AwsTarget) -> _TargetSession:
    with _lock:
        if target not in _target_sessions:
            if len(_target_sessions) >= MAX_TARGETS:
                _target_sessions.pop(next(iter(_target_sessions)))
            _target_sessions[target] = _TargetSession(_session(target))
        return _target_sessions[target]


def _session(target: AwsTarget) -> boto3.Session:
    """Create a session. Cheap: it reads no file and makes no request until a client is created."""
    botocore_session = get_session()
    if target.role_arn:
        # botocore has no public way to set custom refreshable credentials; setting this attribute is common practice.
        botocore_session._credentials = DeferredRefreshableCredentials(
            refresh_using=lambda: assume_role(target), method="sts-assume-role"
        )
    session = boto3.Session(botocore_session=botocore_session, region_name=target.region)
    # Must come after boto3.Session, which adds its own folder to the loader it finds.
    botocore_session.register_component("data_loader", _loader)
    return session


def _fresh_credentials(session: boto3.Session) -> ReadOnlyCredentials | None:
    """Return the current credentials, refreshed if they expire within 15 minutes.

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
    "live": _config(LIVE_CONNECT_SECONDS, LIVE_READ_SECONDS, attempts=1),
}
