"""Whose AWS: assumed roles and clients; one session for each target, one loader of botocore's models for all of them.

Time-outs are short, because pages and leases wait on these calls. Reads are retried by botocore's standard mode (the one
AWS's SDK reference calls safe for several tenants); writes are made exactly once, the engine decides what to do after.
"""

import threading
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config
from botocore.credentials import DeferredRefreshableCredentials, ReadOnlyCredentials
from botocore.loaders import create_loader
from botocore.session import get_session

SESSION_SECONDS = 3600
CONNECT_TIMEOUT_SECONDS = 2
READ_TIMEOUT_SECONDS = 5
WRITE_TIMEOUT_SECONDS = 10
# A page waits for these reads, made once: a failed one shows the last data with its age.
LIVE_CONNECT_SECONDS, LIVE_READ_SECONDS = 1, 4
MAX_TARGETS = 200


@dataclass(frozen=True)
class AwsTarget:
    """An AWS region, and the role to assume there; without a role, the portal's own credentials chain."""

    region: str
    role_arn: str | None = None
    external_id: str | None = None


@dataclass
class _Door:
    """One target's session, whose role is assumed once for all its clients. `lock` is held while a client is made."""

    session: boto3.Session
    clients: dict[tuple[str, str, ReadOnlyCredentials | None], Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


# A service's model takes 10 MB and a fifth of a second to read; nothing in it depends on the session.
_loader = create_loader()
_doors: dict[AwsTarget, _Door] = {}
_lock = threading.Lock()


def client(target: AwsTarget, service: str, *, writes: bool = False) -> Any:
    """A cached boto3 client.

    `writes=True` never repeats a call by itself, and signs with credentials that are made sure of here: the role is
    assumed before the call, never inside it, so the call takes no longer than its own time-outs. Raises botocore's errors.
    """
    return _client(target, service, "writes" if writes else "reads")


def live_client(target: AwsTarget, service: str) -> Any:
    """A cached boto3 client for what a page waits for: short time-outs, no repetition. Raises botocore's errors."""
    return _client(target, service, "live")


def _client(target: AwsTarget, service: str, manner: str) -> Any:
    door = _door(target)
    # Outside the lock: readers need not wait for an AssumeRole.
    fixed = _fresh_credentials(door.session) if manner == "writes" else None
    key = (service, manner, fixed)
    with door.lock:
        if key not in door.clients:
            # Without the client that signs with credentials of the hour before.
            door.clients = {old: made for old, made in door.clients.items() if old[:2] != key[:2]}
            door.clients[key] = door.session.client(
                service,
                config=CONFIGS[manner],
                aws_access_key_id=fixed and fixed.access_key,
                aws_secret_access_key=fixed and fixed.secret_key,
                aws_session_token=fixed and fixed.token,
            )
        return door.clients[key]


def forget(target: AwsTarget) -> None:
    """Drop the target's session and clients: the next call assumes its role anew, with the portal's newest credentials."""
    with _lock:
        _doors.pop(target, None)
        _doors.pop(AwsTarget(target.region), None)


def assume_role(target: AwsTarget) -> dict[str, str]:
    """STS AssumeRole, as botocore's refreshable credentials want it. Raises botocore's errors."""
    sts = client(AwsTarget(target.region), "sts")
    parameters: dict[str, Any] = {
        "RoleArn": target.role_arn,
        "RoleSessionName": "operations-portal",
        "DurationSeconds": SESSION_SECONDS,
    }
    if target.external_id:
        parameters["ExternalId"] = target.external_id
    issued = sts.assume_role(**parameters)["Credentials"]
    return {
        "access_key": issued["AccessKeyId"],
        "secret_key": issued["SecretAccessKey"],
        "token": issued["SessionToken"],
        "expiry_time": issued["Expiration"].isoformat(),
    }


def _door(target: AwsTarget) -> _Door:
    with _lock:
        if target not in _doors:
            if len(_doors) >= MAX_TARGETS:
                _doors.pop(next(iter(_doors)))
            _doors[target] = _Door(_session(target))
        return _doors[target]


def _session(target: AwsTarget) -> boto3.Session:
    """Cheap: it reads no file and no network until a client is made."""
    botocore_session = get_session()
    if target.role_arn:
        # botocore has no public door for one's own refreshable credentials; this attribute is what its users set.
        botocore_session._credentials = DeferredRefreshableCredentials(
            refresh_using=lambda: assume_role(target), method="sts-assume-role"
        )
    session = boto3.Session(botocore_session=botocore_session, region_name=target.region)
    # After boto3, which adds its folder to the loader that it finds.
    botocore_session.register_component("data_loader", _loader)
    return session


def _fresh_credentials(session: boto3.Session) -> ReadOnlyCredentials | None:
    """As they are now, renewed in their last quarter of an hour. None when the portal has none: the call will say so."""
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
