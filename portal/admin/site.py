"""Django admin's doors and frame: the way in through allauth, staff only. What it edits is in each app's admin.py."""

from typing import Any

from allauth.account import views as account_views
from allauth.account.decorators import secure_admin_login
from django.contrib.admin import AdminSite, ModelAdmin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

from portal.access import Policy, is_staff, policy, staff_only


class PortalAdminSite(AdminSite):
    """Sign-in, sign-out and passwords are allauth's, so that its rate limits and two-factor authentication hold."""

    site_title = "Operations portal"
    site_header = "Operations portal: administration"
    index_title = "Organizations and people"

    def has_permission(self, request: HttpRequest) -> bool:
        return is_staff(request.user)

    @policy(Policy.STAFF)
    @method_decorator(never_cache)
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response: HttpResponse = secure_admin_login(self._enter)(request)
        return response

    @method_decorator(never_cache)
    def logout(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return account_views.logout(request)

    def password_change(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return redirect("account_change_password")

    def _enter(self, request: HttpRequest) -> HttpResponse:
        return staff_only(request) or redirect("admin:index")


class StaffAdmin(ModelAdmin):  # type: ignore[type-arg] # generic for the type checker alone
    """Staff may do all that this admin offers: there are no permissions below that role."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return is_staff(request.user)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_staff(request.user)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_staff(request.user)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_staff(request.user)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_staff(request.user)


class ReadOnlyAdmin(StaffAdmin):
    """To look at: what is changed elsewhere, by its own rules, or never."""

    show_full_result_count = False
    actions = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_delete_permission = has_change_permission
