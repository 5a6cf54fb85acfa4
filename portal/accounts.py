"""How allauth is told about our people: nobody signs up by themselves, staff create people in the admin.

A person's one e-mail address is `User.email`; allauth's own table of addresses stays empty.
"""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.internal.flows.login import get_authentication_records
from allauth.core.internal.httpkit import authenticated_user
from django.http import HttpRequest

from portal.audit import AuditKind, record
from portal.errors import is_api


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc] # allauth ships no types
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def save_user(self, request: HttpRequest, user: Any, form: Any, commit: bool = True) -> Any:
        raise NotImplementedError("People are created by staff in the admin.")

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
