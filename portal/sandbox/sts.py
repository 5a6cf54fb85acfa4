"""Identifies callers: access keys, roles with their external ids, and the sessions issued by AssumeRole.

Any access key that was not issued here belongs to the portal's own account. Sessions expire by wall time, as clients
measure it, so that advancing the sandbox clock does not end them.
"""

import re
import secrets
import string
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

from portal.sandbox.errors import AwsError
from portal.sandbox.protocol import ApiRequest, Reply, xml_reply
from portal.sandbox.session_policy import check_policy, find_denied

OWN_ACCOUNT = "111111111111"
OWN_PRINCIPAL = f"arn:aws:iam::{OWN_ACCOUNT}:user/portal"

ROLE_ARN = re.compile(r"^arn:aws[a-z-]*:iam::(\d{12}):role/[\w+=,.@/-]+$")
# An access key issued here contains its account, so that sessions work even if their registry is lost.
ISSUED_KEY = re.compile(r"^ASIA(\d{12})[A-Z0-9]{4}$")

SHORTEST_SESSION_SECONDS, LONGEST_SESSION_SECONDS = 900, 43200  # sts AssumeRole, DurationSeconds


@dataclass
class Role:
    arn: str
    external_id: str | None = None


@dataclass
class Session:
    access_key: str
    role_arn: str
    name: str
    account: str
    expires_at: float
    policy: str | None = None

    @property
    def arn(self) -> str:
        role = self.role_arn.split(":")
        return f"arn:{role[1]}:sts::{self.account}:assumed-role/{role[-1].rsplit('/', 1)[-1]}/{self.name}"


class Identity:
    """Registered roles by ARN and issued sessions by access key."""

    def __init__(self) -> None:
        self.roles: dict[str, Role] = {}
        self.sessions: dict[str, Session] = {}

    def recognize(self, request: ApiRequest) -> None:
        """Set the request's account and principal. Raises ExpiredTokenException for an expired session."""
        session = self.sessions.get(request.access_key)
        issued = ISSUED_KEY.match(request.access_key)
        if session:
            request.account, request.principal = session.account, session.arn
            if session.expires_at < time.time():
                raise expired_token(request)
        elif issued:
            request.account = issued[1]
            request.principal = f"arn:aws:sts::{issued[1]}:assumed-role/unknown/unknown"
        else:
            request.account, request.principal = OWN_ACCOUNT, OWN_PRINCIPAL

    def check_session_policy(self, request: ApiRequest) -> None:
        """Raise AWS's error for a call that the caller's session policy does not allow."""
        session = self.sessions.get(request.access_key)
        if session is None or session.policy is None or request.service == "sts":
            return
        denied = find_denied(session.policy, request)
        if denied:
            message = f"User: {request.principal} is not authorized to perform: {denied.action} on resource: "
            raise AwsError(
                "AccessDeniedException",
                f"{message}{denied.resource} because no session policy allows the {denied.action} action",
            )

    def register(self, arn: str, external_id: str | None) -> None:
        self.roles[arn] = Role(arn, external_id)

    def handle(self, request: ApiRequest) -> Reply | None:
        """Answer AssumeRole and GetCallerIdentity, or return None for actions that are left to moto."""
        if request.action == "AssumeRole":
            return self._assume_role(request)
        if request.action == "GetCallerIdentity":
            return self._caller_identity(request)
        return None

    def _assume_role(self, request: ApiRequest) -> Reply:
        arn = str(request.params.get("RoleArn", ""))
        name = str(request.params.get("RoleSessionName", ""))
        seconds = int(request.params.get("DurationSeconds") or 3600)
        if not SHORTEST_SESSION_SECONDS <= seconds <= LONGEST_SESSION_SECONDS:
            raise AwsError("ValidationError", f"DurationSeconds must be between 900 and 43200, not {seconds}.")
        match = ROLE_ARN.match(arn)
        role = self.roles.get(arn)
        # A missing role and a wrong external id get the same error, because AWS does not reveal which roles exist.
        if match is None or role is None or role.external_id not in (None, request.params.get("ExternalId")):
            raise access_denied(request)
        policy = request.params.get("Policy")
        if policy:
            check_policy(policy)
        key, ends_at = self._new_access_key(match[1]), float(int(time.time()) + seconds)
        session = Session(key, arn, name, match[1], ends_at, policy)
        self.sessions[session.access_key] = session
        expires = datetime.fromtimestamp(session.expires_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        result = (
            f"<Credentials><AccessKeyId>{session.access_key}</AccessKeyId>"
            f"<SecretAccessKey>{secrets.token_urlsafe(30)}</SecretAccessKey>"
            f"<SessionToken>{secrets.token_urlsafe(60)}</SessionToken><Expiration>{expires}</Expiration></Credentials>"
            f"<AssumedRoleUser><AssumedRoleId>{role_id(arn)}:{escape(name)}</AssumedRoleId>"
            f"<Arn>{escape(session.arn)}</Arn></AssumedRoleUser><PackedPolicySize>6</PackedPolicySize>"
        )
        return xml_reply("AssumeRole", result, request_id=request.request_id)

    def _new_access_key(self, account: str) -> str:
        while True:
            tail = "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(4))
            key = f"ASIA{account}{tail}"
            if key not in self.sessions:
                return key

    def _caller_identity(self, request: ApiRequest) -> Reply:
        session = self.sessions.get(request.access_key)
        user_id = f"{role_id(session.role_arn)}:{session.name}" if session else "AIDAPORTALEXAMPLE"
        result = (
            f"<Arn>{escape(request.principal)}</Arn><UserId>{escape(user_id)}</UserId>"
            f"<Account>{request.account}</Account>"
        )
        return xml_reply("GetCallerIdentity", result, request_id=request.request_id)

    def clear(self) -> None:
        self.roles.clear()
        self.sessions.clear()

    def dump(self) -> dict[str, Any]:
        """Return the roles and the sessions that have not expired."""
        live = [asdict(each) for each in self.sessions.values() if each.expires_at > time.time()]
        return {"roles": [asdict(each) for each in self.roles.values()], "sessions": live}

    def load(self, state: dict[str, Any]) -> None:
        self.roles = {each["arn"]: Role(**each) for each in state["roles"]}
        self.sessions = {each["access_key"]: Session(**each) for each in state["sessions"]}


def role_id(arn: str) -> str:
    return "AROA" + uuid.uuid5(uuid.NAMESPACE_URL, arn).hex[:17].upper()


def access_denied(request: ApiRequest) -> AwsError:
    """Return the error in AWS's wording, which names principal, action and resource."""
    action = f"{request.service}:{request.action}"
    message = f"User: {request.principal} is not authorized to perform: {action} on resource: {request.resource_arn}"
    if request.service == "sts":
        return AwsError("AccessDenied", message, 403)
    return AwsError(
        "AccessDeniedException", f"{message} because no identity-based policy allows the {action} action", 400
    )


def expired_token(request: ApiRequest) -> AwsError:
    code = "ExpiredToken" if request.protocol == "query" else "ExpiredTokenException"
    status = 403 if request.protocol == "query" else 400
    return AwsError(code, "The security token included in the request is expired", status)
