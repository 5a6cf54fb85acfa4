import logging
from importlib import import_module

from django.apps import AppConfig
from django.conf import settings
from django.contrib.admin import apps as admin_apps
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.core.signals import request_finished, request_started

from portal.local.exposure import EXPOSED

logger = logging.getLogger(__name__)


class PortalConfig(AppConfig):
    name = "portal"
    verbose_name = "Organizations"

    def ready(self) -> None:
        # Binds shared_task to the configured broker in every process, not only in the worker.
        import_module("portal.celery")
        # Connects its receivers.
        import_module("portal.accounts.signals")
        from portal import tenancy
        from portal.accounts.person import follow_sign_in, follow_sign_out

        for ends in (request_started, request_finished):
            ends.connect(tenancy.leave)
        user_logged_in.connect(follow_sign_in)
        user_logged_out.connect(follow_sign_out)

        if settings.LOCAL and settings.DEMO_EXPOSED:
            logger.warning(EXPOSED)


class PortalAdminConfig(admin_apps.AdminConfig):
    """The configuration of django.contrib.admin with our own site."""

    default = False  # "portal" in INSTALLED_APPS means PortalConfig
    default_site = "portal.admin.site.PortalAdminSite"

    def ready(self) -> None:
        super().ready()
        # Not in portal/admin/__init__.py: loading default_site imports it and would register on a site to be replaced.
        import_module("portal.admin.models")
