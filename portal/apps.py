from importlib import import_module

from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps


class PortalConfig(AppConfig):
    name = "portal"
    verbose_name = "Organizations"

    def ready(self) -> None:
        # Bind shared_task to the configured broker in every process, not only in the worker.
        from portal import celery  # noqa: F401
        from portal.accounts import signals  # noqa: F401 - connects the receivers


class PortalAdminConfig(admin_apps.AdminConfig):
    """The configuration of django.contrib.admin with our own site."""

    default = False  # "portal" in INSTALLED_APPS means PortalConfig
    default_site = "portal.admin.site.PortalAdminSite"

    def ready(self) -> None:
        super().ready()
        # Not in portal/admin/__init__.py: loading default_site imports it and would register on a site to be replaced.
        import_module("portal.admin.models")
