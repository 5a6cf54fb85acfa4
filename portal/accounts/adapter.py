"""The allauth adapter, and the e-mail that invites a member.

Sign-up is closed. Staff create people in Django admin. An organization's admins create them by adding an e-mail address
(portal/members). A person's only e-mail address is `User.email`; allauth's own table of addresses stays empty.
"""

import logging
import smtplib
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter, get_adapter
from allauth.account.forms import default_token_generator
from allauth.account.internal.flows.login import get_authentication_records
from allauth.account.utils import user_pk_to_url_str
from allauth.core.internal.httpkit import authenticated_user
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from portal.accounts.sessions import SessionStore
from portal.accounts.signals import TOO_MANY, record_failed_sign_in
from portal.audit import record
from portal.errors import is_api
from portal.members.commands import accept_first_invitation
from portal.models import AuditKind, Membership, User

logger = logging.getLogger(__name__)


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc] # allauth ships no types
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def save_user(self, request: HttpRequest, user: Any, form: Any, commit: bool = True) -> Any:
        raise NotImplementedError("Sign-up is closed: staff and admins of an organization create people.")

    def set_password(self, user: Any, password: str) -> None:
        """Set a password that the person chose. The first one accepts the invitation that led them here."""
        is_first = not user.has_usable_password()
        with transaction.atomic():
            super().set_password(user, password)
            if is_first:
                accept_first_invitation(user)

    def login(self, request: HttpRequest, user: Any) -> None:
        # Write the audit row first, so that no sign-in is missing from the trail.
        methods = [entry["method"] for entry in get_authentication_records(request, user)]
        record(AuditKind.SIGNED_IN, organization=None, actor=user, subject=user.email, data={"methods": methods})
        super().login(request, user)
        if isinstance(request.session, SessionStore):
            request.session.begin_lifetime()

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        try:
            super().pre_authenticate(request, **credentials)
        except ValidationError:
            self.record_failure(request, credentials, step=TOO_MANY, step_again=TOO_MANY)
            raise

    def authentication_failed(self, request: HttpRequest, **credentials: Any) -> None:
        self.record_failure(request, credentials, step="password", step_again="reauthentication")

    def record_failure(self, request: HttpRequest, credentials: dict[str, Any], *, step: str, step_again: str) -> None:
        """Record a password that did not sign in. `step_again`: the step if the person is signed in already."""
        if request.user.is_authenticated and credentials.get("email") in (None, request.user.email):
            record_failed_sign_in(authenticated_user(request), step=step_again, actor=request.user)
            return
        email = str(credentials.get("email") or "").lower()
        record_failed_sign_in(User.objects.filter(email__iexact=email).first() if email else None, step=step)

    def respond_user_inactive(self, request: HttpRequest, user: Any) -> HttpResponse:
        record_failed_sign_in(user, step="account switched off")
        response: HttpResponse = super().respond_user_inactive(request, user)
        return response

    def logout(self, request: HttpRequest) -> None:
        person = authenticated_user(request)
        record(AuditKind.SIGNED_OUT, organization=None, actor=person, subject=person.email)
        super().logout(request)

    def add_message(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        # An API client does not read messages. They would appear on the person's next page.
        if not is_api(request):
            super().add_message(request, *args, **kwargs)


def mail_new_member(request: HttpRequest, membership: Membership) -> bool:
    """E-mail an invited person, with a link to set a password if they have none.

    Every invited person gets this e-mail, so that neither the page nor its response time reveals who had an account.

    *Returns* whether the mail server accepted it.
    """
    user, organization = membership.user, membership.organization
    context = {
        "actor": request.user,
        "membership": membership,
        "organization": organization,
        "password_url": None if user.has_usable_password() else password_url(request, user),
        "password_url_days": settings.PASSWORD_RESET_TIMEOUT // 86400,
        "home_url": request.build_absolute_uri(reverse("home")),
    }
    try:
        get_adapter(request).send_mail("account/email/member_added", user.email, context)
    except (smtplib.SMTPException, OSError) as error:
        # The mail server's reply may name the portal's account, so it is only logged.
        logger.warning("e-mail to the new member %s failed: %s", membership.pk, error)
        return False
    return True


def password_url(request: HttpRequest, user: User) -> str:
    """Return the link where the person sets a password: allauth's reset link, valid for one use."""
    key = f"{user_pk_to_url_str(user)}-{default_token_generator.make_token(user)}"
    url: str = get_adapter(request).get_reset_password_from_key_url(key)
    return url
