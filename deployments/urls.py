from django.urls import path

from deployments.pages import actions, csv_files, detail
from deployments.pages.list import list_deployments
from deployments.pages.logs_download import download_logs
from deployments.pages.new import new

app_name = "deployments"
urlpatterns = [
    path("", list_deployments, name="list"),
    path("list.csv", csv_files.deployments_csv, name="csv"),
    path("new", new, name="new"),
    path("bulk", actions.bulk, name="bulk"),
    path("<uuid:deployment_id>/", detail.detail, name="detail"),
    path("<uuid:deployment_id>/events.csv", csv_files.events_csv, name="events_csv"),
    path("<uuid:deployment_id>/logs.<slug:form>", download_logs, name="log_download"),
    path("<uuid:deployment_id>/<slug:command>", actions.act, name="act"),
]
