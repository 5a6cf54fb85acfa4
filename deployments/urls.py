from django.urls import path

from deployments.pages import actions, detail

app_name = "deployments"
urlpatterns = [
    path("", detail.list_deployments, name="list"),
    path("new", detail.new, name="new"),
    path("bulk", actions.bulk, name="bulk"),
    path("<uuid:deployment_id>/", detail.detail, name="detail"),
    path("<uuid:deployment_id>/logs.txt", detail.download_logs, name="log_text"),
    path("<uuid:deployment_id>/<slug:command>", actions.act, name="act"),
]
