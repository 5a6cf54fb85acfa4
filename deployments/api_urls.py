from django.urls import path

from deployments import agents_api, api

urlpatterns = [
    path("deployments", api.deployments, name="api-deployments"),
    path("deployments/<uuid:deployment_id>", api.deployment, name="api-deployment"),
    path("deployments/<uuid:deployment_id>/events", api.events, name="api-deployment-events"),
    path("deployments/<uuid:deployment_id>/logs", api.logs, name="api-deployment-logs"),
    path("deployments/<uuid:deployment_id>/metrics", api.metrics, name="api-deployment-metrics"),
    path("deployments/<uuid:deployment_id>/restart", api.restart, name="api-deployment-restart"),
    path("deployments/<uuid:deployment_id>/scale", api.scale, name="api-deployment-scale"),
    path("deployments/<uuid:deployment_id>/stop", api.stop, name="api-deployment-stop"),
    path("agents", agents_api.agents, name="api-agents"),
    path("agents/<uuid:agent_id>", agents_api.agent, name="api-agent"),
    path("agents/<uuid:agent_id>/deploy", api.deploy, name="api-agent-deploy"),
]
