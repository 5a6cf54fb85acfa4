"""Django app for the `manage.py sandbox` command. It has no models and no pages."""

from django.apps import AppConfig


class SandboxConfig(AppConfig):
    name = "portal.sandbox"
    label = "sandbox"
