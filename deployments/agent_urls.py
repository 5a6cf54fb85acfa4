from django.urls import path

from deployments.pages import agents

app_name = "agents"
urlpatterns = [
    path("", agents.list_agents, name="list"),
    path("new", agents.new, name="new"),
    path("<uuid:agent_id>/", agents.detail, name="detail"),
    path("<uuid:agent_id>/edit", agents.edit, name="edit"),
]
