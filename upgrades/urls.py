from django.urls import path

from upgrades.pages import new, validation, versions
from upgrades.pages.before_after import before_after
from upgrades.pages.decide import decide
from upgrades.pages.detail import detail
from upgrades.pages.history import history, history_csv
from upgrades.pages.overview import platform_services
from upgrades.pages.rollback import rollback
from upgrades.pages.service_logs import download_logs, service_logs
from upgrades.pages.stop import stop

app_name = "upgrades"
urlpatterns = [
    path("services/", platform_services, name="platform_services"),
    path("versions/", versions.versions, name="versions"),
    path("upgrades/", history, name="history"),
    path("upgrades/history.csv", history_csv, name="history_csv"),
    path("upgrades/new", new.new, name="new"),
    path("upgrades/preflight", new.preflight_panel, name="preflight"),
    path("upgrades/<str:upgrade_id>/", detail, name="detail"),
    path("upgrades/<str:upgrade_id>/stop", stop, name="stop"),
    path("upgrades/<str:upgrade_id>/decide", decide, name="decide"),
    path("upgrades/<str:upgrade_id>/rollback", rollback, name="rollback"),
    path("upgrades/<str:upgrade_id>/probe", validation.probe, name="probe"),
    path("upgrades/<str:upgrade_id>/evidence", validation.evidence, name="evidence"),
    path("upgrades/<str:upgrade_id>/<str:service>/before-after", before_after, name="before_after"),
    path("upgrades/<str:upgrade_id>/<str:service>/logs", service_logs, name="service_logs"),
    path("upgrades/<str:upgrade_id>/<str:service>/logs.<slug:form>", download_logs, name="log_download"),
    path("upgrades/<str:upgrade_id>/validation/<str:check>", validation.sign, name="sign"),
]
