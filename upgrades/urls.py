from django.urls import path

from upgrades.pages import context, new, validation, versions

app_name = "upgrades"
urlpatterns = [
    path("services/", context.platform_services, name="platform_services"),
    path("versions/", versions.versions, name="versions"),
    path("upgrades/", context.history, name="history"),
    path("upgrades/history.csv", context.history_csv, name="history_csv"),
    path("upgrades/new", new.new, name="new"),
    path("upgrades/preflight", new.preflight_panel, name="preflight"),
    path("upgrades/<str:upgrade_id>/", context.detail, name="detail"),
    path("upgrades/<str:upgrade_id>/stop", context.stop, name="stop"),
    path("upgrades/<str:upgrade_id>/rollback", context.rollback, name="rollback"),
    path("upgrades/<str:upgrade_id>/probe", validation.probe, name="probe"),
    path("upgrades/<str:upgrade_id>/evidence", validation.evidence, name="evidence"),
    path("upgrades/<str:upgrade_id>/validation/<str:check>", validation.sign, name="sign"),
]
