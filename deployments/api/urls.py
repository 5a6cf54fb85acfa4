from django.urls import path

from deployments.api import agents, deployments, revisions

urlpatterns = [
    path("deployments", deployments.deployments, name="api-deployments"),
    path("deployments/<uuid:deployment_id>", deployments.deployment, name="api-deployment"),
    path("deployments/<uuid:deployment_id>/events", deployments.events, name="api-deployment-events"),
    path("deployments/<uuid:deployment_id>/logs", deployments.logs, name="api-deployment-logs"),
    path("deployments/<uuid:deployment_id>/metrics", deployments.metrics, name="api-deployment-metrics"),
    path("deployments/<uuid:deployment_id>/restart", deployments.restart, name="api-deployment-restart"),
    path("deployments/<uuid:deployment_id>/scale", deployments.scale, name="api-deployment-scale"),
    path("deployments/<uuid:deployment_id>/stop", deployments.stop, name="api-deployment-stop"),
    path("agents", agents.agents, name="api-agents"),
    path("agents/<uuid:agent_id>", agents.agent, name="api-agent"),
    path("agents/<uuid:agent_id>/deploy", deployments.deploy, name="api-agent-deploy"),
    path("agents/<uuid:agent_id>/revisions", revisions.revisions, name="api-revisions"),
    path("agents/<uuid:agent_id>/revisions/<int:number>", revisions.revision, name="api-revision"),
    path("agents/<uuid:agent_id>/revisions/<int:number>/restore", revisions.restore, name="api-revision-restore"),
]
