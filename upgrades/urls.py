from django.urls import path

from upgrades import form_views, validation_views, version_views, views

app_name = "upgrades"
urlpatterns = [
    path("services/", views.platform_services, name="platform_services"),
    path("versions/", version_views.versions, name="versions"),
    path("upgrades/", views.history, name="history"),
    path("upgrades/history.csv", views.history_csv, name="history_csv"),
    path("upgrades/new", form_views.new, name="new"),
    path("upgrades/preflight", form_views.preflight_panel, name="preflight"),
    path("upgrades/<str:upgrade_id>/", views.detail, name="detail"),
    path("upgrades/<str:upgrade_id>/stop", views.stop, name="stop"),
    path("upgrades/<str:upgrade_id>/rollback", views.rollback, name="rollback"),
    path("upgrades/<str:upgrade_id>/probe", validation_views.probe, name="probe"),
    path("upgrades/<str:upgrade_id>/evidence", validation_views.evidence, name="evidence"),
    path("upgrades/<str:upgrade_id>/validation/<str:check>", validation_views.sign, name="sign"),
]
