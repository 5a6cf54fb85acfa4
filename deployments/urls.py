from django.urls import path

from deployments import act_views, views

app_name = "deployments"
urlpatterns = [
    path("", views.list_deployments, name="list"),
    path("new", views.new, name="new"),
    path("bulk", act_views.bulk, name="bulk"),
    path("<uuid:deployment_id>/", views.detail, name="detail"),
    path("<uuid:deployment_id>/logs.txt", views.download_logs, name="log_text"),
    path("<uuid:deployment_id>/<slug:command>", act_views.act, name="act"),
]
