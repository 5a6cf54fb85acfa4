"""Our versions of allauth's forms (settings.ACCOUNT_FORMS, settings.MFA_FORMS).

Those of second factors and passkeys record each failure that allauth sends no signal of (portal/accounts/signals.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from allauth.account.forms import LoginForm
from allauth.mfa.adapter import get_adapter
from allauth.mfa.base import forms as codes
from allauth.mfa.webauthn import forms as passkeys
from allauth.mfa.webauthn.internal.auth import extract_user_from_response
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.forms import Form

from portal.accounts.signals import TOO_MANY, record_failed_sign_in
from portal.models import User

# The code of the error of allauth's limits on wrong passwords and codes.
LIMITED = "too_many_login_attempts"


class SignInForm(LoginForm):  # type: ignore[misc] # allauth ships no types
    """The sign-in form. The e-mail field has `autocomplete="username"`, which password managers expect."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["login"].label = "E-mail address"
        self.fields["login"].widget.attrs |= {"autocomplete": "username", "autofocus": True}
        for field in self.fields.values():
            field.widget.attrs.pop("placeholder", None)


def is_limited(form: Form) -> bool:
    """Return whether the form was refused unread, because too many came before."""
    return LIMITED in {error.code for errors in form.errors.as_data().values() for error in errors}


@contextmanager
def refused_if_malformed() -> Iterator[None]:
    """Refuse a credential that is no answer of a browser. python-fido2 raises these for it, and allauth catches some."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise get_adapter().validation_error("incorrect_code") from error


class NewPasskeyForm(passkeys.AddWebAuthnForm):  # type: ignore[misc] # allauth ships no types
    """Takes a new security key."""

    def clean(self) -> Any:
        with refused_if_malformed():
            return super().clean()


class CodeForm(codes.AuthenticateForm):  # type: ignore[misc] # allauth ships no types
    """Takes a code as the second step of a sign-in. allauth sends a signal of a wrong one, not of one too many."""

    def clean(self) -> Any:
        if is_limited(self):
            record_failed_sign_in(self.user, step=TOO_MANY)
        return super().clean()


class CodeAgainForm(codes.ReauthenticateForm):  # type: ignore[misc]
    """Asks a signed-in person for a code of their authenticator app."""

    def clean(self) -> Any:
        if is_limited(self):
            record_failed_sign_in(self.user, step=TOO_MANY, actor=self.user)
        return super().clean()


class PasskeyStepForm(passkeys.AuthenticateWebAuthnForm):  # type: ignore[misc]
    """Takes a security key as the second step of a sign-in."""

    step = "second factor"

    def clean_credential(self) -> Any:
        with refused_if_malformed():
            return super().clean_credential()

    def clean(self) -> Any:
        if self.errors:
            actor = self.user if self.reauthenticated else AnonymousUser()
            step = TOO_MANY if is_limited(self) else self.step
            record_failed_sign_in(self.find_person(), step=step, actor=actor, type="webauthn")
        return super().clean()

    def find_person(self) -> User | None:
        """Return whose key was tried."""
        person: User | None = self.user
        return person


class PasskeyAgainForm(passkeys.ReauthenticateWebAuthnForm, PasskeyStepForm):  # type: ignore[misc]
    """Asks a signed-in person for their security key."""

    step = "reauthentication"


class PasskeyForm(passkeys.LoginWebAuthnForm, PasskeyStepForm):  # type: ignore[misc]
    """Takes a passkey in place of address and password."""

    step = "passkey"

    def find_person(self) -> User | None:
        """Return whose passkey was sent. The sender may name anybody, as with an e-mail address."""
        with suppress(ValidationError, ValueError, AttributeError):
            person: User = extract_user_from_response(self.sent_credential())
            return person
        return None

    def sent_credential(self) -> Any:
        return self.fields["credential"].to_python(self.data.get("credential"))
