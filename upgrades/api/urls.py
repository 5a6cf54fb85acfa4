from django.urls import path

from upgrades.api import upgrades, validation

urlpatterns = [
    path("deployments/versions", upgrades.versions, name="versions"),
    path("deployments/preflight", upgrades.preflight, name="preflight"),
    path("deployments/upgrade", upgrades.trigger, name="upgrade-trigger"),
    path("deployments/upgrade/<str:upgrade_id>", upgrades.status, name="upgrade-status"),
    path("deployments/upgrade/<str:upgrade_id>/stop", upgrades.stop, name="upgrade-stop"),
    path("deployments/upgrade/<str:upgrade_id>/continue", upgrades.decision, name="upgrade-continue"),
    path("deployments/upgrade/<str:upgrade_id>/events", upgrades.events, name="upgrade-events"),
    path("deployments/upgrade/<str:upgrade_id>/rollback", upgrades.rollback, name="upgrade-rollback"),
    path("deployments/upgrade/<str:upgrade_id>/validation", validation.validation, name="upgrade-validation"),
    path("deployments/upgrade/<str:upgrade_id>/validation/probe", validation.probe, name="upgrade-probe"),
    path("deployments/upgrade/<str:upgrade_id>/evidence", validation.evidence, name="upgrade-evidence"),
    path("deployments/upgrades", upgrades.history, name="upgrade-history"),
]
