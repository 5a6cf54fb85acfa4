"""Commands on API tokens, with the rules about roles and numbers.

A personal token acts for its owner. An organization's token is made by an admin, acts for this admin, is seen by all
members and revoked by any admin, and never has the scope `approve`: a decision or signature is a person's. What a token may
do is decided at each request, from its scopes and its person's present role (portal/access.py).

Each command calls `require`, runs in one transaction and writes the audit row in it.
"""

from datetime import timedelta
from typing import NamedTuple

from django.db import transaction
from django.db.models.functions import Now

from portal.access import require, require_fresh
from portal.accounts.tokens import HINT_LENGTH, hash_secret, new_secret
from portal.audit import record
from portal.errors import PortalError, found_or_404
from portal.idempotency import KeyUse
from portal.models import ApiToken, AuditKind, Organization, Role, Scope, TokenKind, User

MAX_PERSONAL, MAX_ORGANIZATION = 20, 50  # of one person in one organization; of one organization


class Created(NamedTuple):
    """The result of `create_token`. `secret` is to be shown once; None for a repeated request."""

    token: ApiToken
    secret: str | None


def create_token(
    organization: Organization,
    *,
    actor: User,
    kind: TokenKind,
    name: str,
    scopes: list[Scope],
    days: int,
    is_fresh: bool,
    idempotency_key: str | None = None,
) -> Created:
    """Make a token that expires after `days`. Only its hash is stored.

    *Raises* PortalError: 403 `forbidden`, `reauthentication_required`, 404, 400 `scope_refused`, 409 `too_many_tokens`,
    422 `idempotency_mismatch`.
    """
    role = require(actor, organization, Role.ADMIN if kind == TokenKind.ORGANIZATION else Role.VIEWER)
    require_fresh(is_fresh)
    refuse_scopes(organization, kind, scopes, role)
    asked = {"kind": kind, "name": name, "scopes": scopes, "days": days}
    key = KeyUse.for_request("create_token", asked, organization=organization, user=actor, key=idempotency_key)
    secret = new_secret()
    with transaction.atomic():
        # One at a time, so that a duplicate request finds what the first one made, and the count is correct.
        Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        earlier = key.find_earlier()
        if earlier:
            return Created(found_or_404(ApiToken.objects.filter(organization=organization, pk=earlier).first()), None)
        refuse_too_many(organization, actor, kind)
        token = ApiToken.objects.create(
            organization=organization,
            user=actor,
            kind=kind,
            name=name,
            secret_hash=hash_secret(secret),
            hint=secret[:HINT_LENGTH],
            scopes=scopes,
            expires_at=Now() + timedelta(days=days),
        )
        token.refresh_from_db(fields=["created_at", "expires_at"])
        key.store(str(token.pk))
        record_token(AuditKind.TOKEN_CREATED, token, actor)
    return Created(token, secret)


def refuse_scopes(organization: Organization, kind: TokenKind, scopes: list[Scope], role: Role) -> None:
    """Raise PortalError 400 for a scope that the token could never use, so that nobody relies on it."""
    sentences = [
        f"Your role in {organization.name} is {role.value}; {scope.value} needs {scope.needed_role.value}."
        for scope in scopes
        if not role.includes(scope.needed_role)
    ]
    if kind == TokenKind.ORGANIZATION and Scope.APPROVE in scopes:
        sentences.append("An organization's token cannot approve. Use a personal token.")
    if sentences:
        raise PortalError("scope_refused", " ".join(sentences), 400, errors={"scopes": sentences})


def refuse_too_many(organization: Organization, actor: User, kind: TokenKind) -> None:
    tokens = ApiToken.objects.listed().filter(organization=organization, kind=kind)
    most = MAX_ORGANIZATION
    if kind == TokenKind.PERSONAL:
        tokens, most = tokens.filter(user=actor), MAX_PERSONAL
    if tokens.count() >= most:
        message = f"There are already {most} tokens for {organization.name}, the maximum. Revoke one first."
        raise PortalError("too_many_tokens", message, 409)


def revoke_token(token: ApiToken, *, actor: User) -> None:
    """End the token; its next request is refused. A token that was revoked already is a no-op.

    Its owner may revoke a personal token, and an admin any token of the organization.

    *Raises* PortalError: 403, 404.
    """
    is_own = token.kind == TokenKind.PERSONAL and token.user_id == actor.pk
    require(actor, token.organization, Role.VIEWER if is_own else Role.ADMIN)
    with transaction.atomic():
        if ApiToken.objects.filter(pk=token.pk, revoked_at__isnull=True).update(revoked_at=Now()):
            record_token(AuditKind.TOKEN_REVOKED, token, actor)


def record_token(kind: AuditKind, token: ApiToken, actor: User) -> None:
    data = {"name": token.name, "kind": token.kind, "scopes": token.scopes, "person": token.user.email}
    data["expires_at"] = f"{token.expires_at:%Y-%m-%dT%H:%M:%SZ}"
    record(kind, organization=token.organization, actor=actor, subject=str(token.pk), data=data)
