"""The app that brings `manage.py sandbox`; it has no models and no pages."""

from django.apps import AppConfig


class SandboxConfig(AppConfig):
    name = "portal.sandbox"
    label = "sandbox"
