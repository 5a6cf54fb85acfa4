"""Read-only admin pages for agents and deployments.

They are changed only through the portal, which checks the rules, records the events and updates ECS.
"""

from django.contrib import admin

from deployments.models import Agent, Deployment
from portal.admin.site import ReadOnlyAdmin


@admin.register(Agent)
class AgentAdmin(ReadOnlyAdmin):
    list_display = ("name", "organization", "image", "cpu", "memory", "created_at")
    list_filter = ("organization",)
    list_select_related = ("organization",)
    search_fields = ("name", "image")


@admin.register(Deployment)
class DeploymentAdmin(ReadOnlyAdmin):
    list_display = ("service_name", "organization", "agent", "status", "replicas", "last_checked_at", "check_error")
    list_filter = ("status", "organization")
    list_select_related = ("organization", "agent")
    search_fields = ("service_name", "agent__name")
