"""How allauth is told about our people: nobody signs up by themselves. Staff create people in the admin, and an admin of
an organization does by adding an address (members.py); the mail with which its owner sets a password is here.

A person's one e-mail address is `User.email`; allauth's own table of addresses stays empty.
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
from django.http import HttpRequest
from django.urls import reverse

from portal.audit import record
from portal.errors import is_api
from portal.models import AuditKind, Membership, User

logger = logging.getLogger(__name__)


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc] # allauth ships no types
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def save_user(self, request: HttpRequest, user: Any, form: Any, commit: bool = True) -> Any:
        raise NotImplementedError("Nobody signs up: people are created by staff and by admins of an organization.")

    def login(self, request: HttpRequest, user: Any) -> None:
        # The row first: without it nobody gets in.
        methods = [entry["method"] for entry in get_authentication_records(request, user)]
        record(AuditKind.SIGNED_IN, organization=None, actor=user, subject=user.email, data={"methods": methods})
        super().login(request, user)

    def logout(self, request: HttpRequest) -> None:
        person = authenticated_user(request)
        record(AuditKind.SIGNED_OUT, organization=None, actor=person, subject=person.email)
        super().logout(request)

    def add_message(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        # A client of the API reads no messages; they would wait for the person's next page.
        if not is_api(request):
            super().add_message(request, *args, **kwargs)


def mail_new_member(request: HttpRequest, membership: Membership) -> bool:
    """Tell somebody that they were added, and by which link they set a password if they have none.

    To everybody who is added, so that neither the page nor how long it takes says who had an account. Returns whether the
    mail server took it.
    """
    user, organization = membership.user, membership.organization
    context = {
        "actor": request.user,
        "membership": membership,
        "organization": organization,
        "password_url": None if user.has_usable_password() else password_url(request, user),
        "password_url_days": settings.PASSWORD_RESET_TIMEOUT // 86400,
        "overview_url": request.build_absolute_uri(reverse("overview", args=[organization.slug])),
    }
    try:
        get_adapter(request).send_mail("account/email/member_added", user.email, context)
    except (smtplib.SMTPException, OSError) as error:
        # What the mail server says may name the portal's account: it goes to the log.
        logger.warning("mail to the new member %s: %s", membership.pk, error)
        return False
    return True


def password_url(request: HttpRequest, user: User) -> str:
    """Where the person sets a password: the link of allauth's mail about a forgotten one, good for one use."""
    key = f"{user_pk_to_url_str(user)}-{default_token_generator.make_token(user)}"
    url: str = get_adapter(request).get_reset_password_from_key_url(key)
    return url
