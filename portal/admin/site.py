"""The Django admin site: staff only, with sign-in through allauth. portal/admin/models.py registers the models."""

from collections.abc import Iterable
from typing import Any

from allauth.account import views as account_views
from allauth.account.decorators import secure_admin_login
from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import BaseModelAdmin
from django.contrib.admin.utils import unquote
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.decorators import method_decorator
from django.views.decorators.cache import never_cache

from portal.access import Policy, is_staff, policy, staff_only
from portal.audit import record_repeated
from portal.errors import PortalError
from portal.models import AuditKind, Organization

MAX_FILTERS = 1000


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


def record_read(request: HttpRequest, organization: Organization | None) -> None:
    """Record, at most once a minute, that staff read an organization's record; for None, a list across organizations."""
    kind, filters = AuditKind.STAFF_READ, request.GET.urlencode()[:MAX_FILTERS]
    more = {"filters": filters} if filters else {}
    path = request.path[:254]
    record_repeated(kind, organization=organization, actor=request.user, subject=path, more=more, is_counted=False)


def check_keys(model: type[Model], keys: Iterable[Any]) -> None:
    """Raise PortalError 400 for a key that no row of the model can have. Django admin would fail with 500."""
    for key in keys:
        try:
            model._meta.pk.to_python(key)
            is_possible = "\x00" not in str(key)
        except ValidationError:
            is_possible = False
        if key and not is_possible:
            raise PortalError("bad_request", f"This is not the key of a {model._meta.verbose_name}.", 400)


class CheckedAutocompleteSelect(AutocompleteSelect):
    """An autocomplete field that refuses a value that is no key, when the page shows it again with its errors."""

    def optgroups(self, name: str, value: Any, attr: Any = None) -> Any:
        check_keys(self.field.remote_field.model, value)
        return super().optgroups(name, value, attr)


class CheckedAutocompletes(BaseModelAdmin):
    """Uses CheckedAutocompleteSelect for the autocomplete fields of a page or of its rows."""

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name in self.get_autocomplete_fields(request):
            kwargs["widget"] = CheckedAutocompleteSelect(db_field, self.admin_site, using=kwargs.get("using"))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


class StaffAdmin(CheckedAutocompletes, ModelAdmin):
    """An admin page on which staff may do everything. There are no finer permissions."""

    def response_action(self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any) -> Any:
        check_keys(self.model, request.POST.getlist(ACTION_CHECKBOX_NAME))
        return super().response_action(request, queryset, *args, **kwargs)

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

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", *args: Any, **kwargs: Any
    ) -> Any:
        """Show and save the form. Its address is given, as it may be shown after re-authentication, at another one."""
        return super().changeform_view(request, object_id, form_url or request.get_full_path(), *args, **kwargs)

    def change_view(self, request: HttpRequest, object_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        response: HttpResponse = super().change_view(request, object_id, *args, **kwargs)
        if request.method == "GET" and response.status_code == 200:
            found: Any = self.get_object(request, unquote(object_id))
            organization = found if isinstance(found, Organization) else getattr(found, "organization", None)
            if organization:
                record_read(request, organization)
        return response


class ReadOnlyAdmin(StaffAdmin):
    """A read-only admin page, for rows that are changed elsewhere or never."""

    show_full_result_count = False
    actions = None

    def changelist_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Show the rows of all organizations, which is therefore recorded in the site's audit trail."""
        response: HttpResponse = super().changelist_view(request, *args, **kwargs)
        if response.status_code == 200:
            record_read(request, None)
        return response

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    has_delete_permission = has_change_permission
