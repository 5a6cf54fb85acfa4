from django.urls import path

from deployments import agent_views

app_name = "agents"
urlpatterns = [
    path("", agent_views.list_agents, name="list"),
    path("new", agent_views.new, name="new"),
    path("<uuid:agent_id>/", agent_views.detail, name="detail"),
    path("<uuid:agent_id>/edit", agent_views.edit, name="edit"),
]
