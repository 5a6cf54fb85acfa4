"""The Django admin site: staff only, with sign-in through allauth. portal/admin/models.py registers the models."""

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
    """The admin site. allauth handles sign-in, sign-out and passwords, so its rate limits and second factors apply."""

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


class StaffAdmin(ModelAdmin):  # type: ignore[type-arg] # generic only for the type checker
    """An admin page on which staff may do everything. There are no finer permissions."""

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
    """A read-only admin page, for rows that are changed elsewhere or never."""

    show_full_result_count = False
    actions = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_delete_permission = has_change_permission
