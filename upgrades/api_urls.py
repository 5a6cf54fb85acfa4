from django.urls import path

from upgrades import api, validation_api

urlpatterns = [
    path("deployments/versions", api.versions, name="versions"),
    path("deployments/preflight", api.preflight, name="preflight"),
    path("deployments/upgrade", api.trigger, name="upgrade-trigger"),
    path("deployments/upgrade/<str:upgrade_id>", api.status, name="upgrade-status"),
    path("deployments/upgrade/<str:upgrade_id>/stop", api.stop, name="upgrade-stop"),
    path("deployments/upgrade/<str:upgrade_id>/events", api.events, name="upgrade-events"),
    path("deployments/upgrade/<str:upgrade_id>/rollback", api.rollback, name="upgrade-rollback"),
    path("deployments/upgrade/<str:upgrade_id>/validation", validation_api.validation, name="upgrade-validation"),
    path("deployments/upgrade/<str:upgrade_id>/validation/probe", validation_api.probe, name="upgrade-probe"),
    path("deployments/upgrade/<str:upgrade_id>/evidence", validation_api.evidence, name="upgrade-evidence"),
    path("deployments/upgrades", api.history, name="upgrade-history"),
]
