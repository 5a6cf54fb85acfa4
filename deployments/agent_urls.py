from django.urls import path

from deployments.pages import agents, csv_files, revisions
from deployments.pages.versions import versions

app_name = "agents"
urlpatterns = [
    path("", agents.list_agents, name="list"),
    path("list.csv", csv_files.agents_csv, name="csv"),
    path("new", agents.new, name="new"),
    path("<uuid:agent_id>/", agents.detail, name="detail"),
    path("<uuid:agent_id>/edit", agents.edit, name="edit"),
    path("<uuid:agent_id>/versions", versions, name="versions"),
    path("<uuid:agent_id>/revisions/", revisions.list_revisions, name="revisions"),
    path("<uuid:agent_id>/revisions/<int:number>/", revisions.detail, name="revision"),
    path("<uuid:agent_id>/revisions/<int:number>/restore", revisions.restore, name="restore"),
]
