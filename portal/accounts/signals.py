"""Writes audit rows about what people do with their own account, on allauth's signals. PortalConfig.ready() imports it.

Sign-ins that succeed are recorded by the adapter, before the session begins.
"""

from typing import Any

from allauth.account.signals import password_changed, password_reset, password_set
from allauth.mfa.models import Authenticator
from allauth.mfa.signals import authentication_failed, authenticator_added, authenticator_removed, authenticator_reset
from django.contrib.auth.models import AnonymousUser
from django.dispatch import receiver

from portal.audit import record, record_repeated
from portal.models import AuditKind, User

# The target of failed sign-ins with an address that no one has: one for all of them, so that they cannot fill the trail,
# and so that a password that was typed in the wrong field is not stored.
NO_ACCOUNT = "no account"
# The step of a sign-in that a limit refused before its password or code was looked at.
TOO_MANY = "too many attempts"


@receiver([password_changed, password_set])
def record_password_change(sender: Any, user: User, **kwargs: Any) -> None:
    record(AuditKind.PERSON_PASSWORD_CHANGED, organization=None, actor=user, subject=user.email)


@receiver(password_reset)
def record_password_reset(sender: Any, user: User, **kwargs: Any) -> None:
    record(AuditKind.PERSON_PASSWORD_RESET, organization=None, actor=user, subject=user.email)


@receiver(authenticator_added)
def record_factor_added(sender: Any, user: User, authenticator: Authenticator, **kwargs: Any) -> None:
    record_factor(AuditKind.PERSON_SECOND_FACTOR_ADDED, user, authenticator)


@receiver(authenticator_removed)
def record_factor_removed(sender: Any, user: User, authenticator: Authenticator, **kwargs: Any) -> None:
    record_factor(AuditKind.PERSON_SECOND_FACTOR_REMOVED, user, authenticator)


@receiver(authenticator_reset)
def record_codes_generated(sender: Any, user: User, **kwargs: Any) -> None:
    record(AuditKind.PERSON_RECOVERY_CODES_GENERATED, organization=None, actor=user, subject=user.email)


def record_factor(kind: AuditKind, user: User, authenticator: Authenticator) -> None:
    """Record a second factor. Recovery codes are not one: they come with the first factor and go with the last."""
    is_codes = authenticator.type == Authenticator.Type.RECOVERY_CODES
    if is_codes and kind == AuditKind.PERSON_SECOND_FACTOR_ADDED:
        kind = AuditKind.PERSON_RECOVERY_CODES_GENERATED
    record(kind, organization=None, actor=user, subject=user.email, data={"type": authenticator.type})


@receiver(authentication_failed)
def record_wrong_code(sender: Any, user: User, authenticator: Authenticator, **kwargs: Any) -> None:
    step = "reauthentication" if kwargs.get("reauthentication") else "second factor"
    actor = user if kwargs.get("reauthentication") else AnonymousUser()
    record_failed_sign_in(user, step=step, actor=actor, type=authenticator.type)


def record_failed_sign_in(account: User | None, *, step: str, actor: Any = None, **more: Any) -> None:
    """Record a failed sign-in. `account`: the one that was tried; None for an address that no one has."""
    record_repeated(
        AuditKind.SIGN_IN_FAILED,
        organization=None,
        actor=actor or AnonymousUser(),
        subject=account.email if account else NO_ACCOUNT,
        same={"step": step} | more,
    )
