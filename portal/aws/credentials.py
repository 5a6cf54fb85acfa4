"""Whose AWS: assumed roles and clients, one client for each target and service.

Time-outs are short, because pages and leases wait on these calls. Reads are retried by botocore's standard mode (the one
AWS's SDK reference calls safe for several tenants); writes are made exactly once, the engine decides what to do after.
"""

import threading
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.credentials import DeferredRefreshableCredentials
from botocore.session import get_session

SESSION_SECONDS = 3600
CONNECT_TIMEOUT_SECONDS = 2
READ_TIMEOUT_SECONDS = 5
WRITE_TIMEOUT_SECONDS = 10
# The longest that one write takes: the engine's lease must outlive it.
LONGEST_WRITE_SECONDS = CONNECT_TIMEOUT_SECONDS + WRITE_TIMEOUT_SECONDS
# A page waits for these reads, made once: a failed one shows the last data with its age.
LIVE_CONNECT_SECONDS, LIVE_READ_SECONDS = 1, 4
MAX_CLIENTS = 400


@dataclass(frozen=True)
class AwsTarget:
    """An AWS region, and the role to assume there; without a role, the portal's own credentials chain."""

    region: str
    role_arn: str | None = None
    external_id: str | None = None


_clients: dict[tuple[AwsTarget, str, str], Any] = {}
_lock = threading.Lock()


def client(target: AwsTarget, service: str, *, writes: bool = False) -> Any:
    """A cached boto3 client. `writes=True` never repeats a call by itself. Makes no network call."""
    return _cached(target, service, "writes" if writes else "reads")


def live_client(target: AwsTarget, service: str) -> Any:
    """A client for what a page waits for: short time-outs, no repetition. Makes no network call."""
    return _cached(target, service, "live")


def _cached(target: AwsTarget, service: str, manner: str) -> Any:
    key = (target, service, manner)
    with _lock:
        if key not in _clients:
            if len(_clients) >= MAX_CLIENTS:
                _clients.pop(next(iter(_clients)))
            _clients[key] = _session(target).client(service, config=CONFIGS[manner])
        return _clients[key]


def forget(target: AwsTarget) -> None:
    """Drop the target's clients, and with them its assumed role: the next call assumes it anew."""
    with _lock:
        for key in [key for key in _clients if key[0] == target]:
            del _clients[key]


def assume_role(target: AwsTarget) -> dict[str, str]:
    """STS AssumeRole, as botocore's refreshable credentials want it. Raises botocore's errors."""
    sts = boto3.Session().client("sts", region_name=target.region, config=CONFIGS["reads"])
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


def _session(target: AwsTarget) -> boto3.Session:
    if not target.role_arn:
        return boto3.Session(region_name=target.region)
    botocore_session = get_session()
    # botocore has no public door for one's own refreshable credentials; this attribute is what its users set.
    botocore_session._credentials = DeferredRefreshableCredentials(
        refresh_using=lambda: assume_role(target), method="sts-assume-role"
    )
    return boto3.Session(botocore_session=botocore_session, region_name=target.region)


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
