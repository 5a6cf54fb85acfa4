from django.apps import AppConfig


class PortalConfig(AppConfig):
    name = "portal"
    verbose_name = "Organizations"

    def ready(self) -> None:
        # Binds shared_task to the configured broker in every process, not only in the worker.
        from portal import celery  # noqa: F401
