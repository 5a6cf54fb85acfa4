"""The routes of the yardstick: ModelSerializers and generic views, with the fields that the product answers."""

from typing import Any

from django.db.models import QuerySet
from django.urls import path
from rest_framework import filters, generics, serializers

from deployments.models import Deployment, DeploymentEvent
from upgrades.models import Rollout, Upgrade, UpgradeCheck

DEPLOYMENT_FIELDS = [
    *("id", "agent_id", "agent_name", "organization", "status", "version", "replicas", "running_replicas", "node_id"),
    *("started_at", "ended_at", "error_message", "created_at"),
]
UPGRADE_FIELDS = [
    *("upgrade_id", "organization", "status", "kind", "version", "force_new_deployment", "reason", "initiated_by"),
    *("services", "success_count", "failed_count", "validation", "message", "error_message", "override_reason"),
    *("started_at", "completed_at", "checks"),
]


class EventSerializer(serializers.ModelSerializer[DeploymentEvent]):
    class Meta:
        model = DeploymentEvent
        fields = ["id", "deployment_id", "event_type", "status", "node_id", "error_message", "created_at", "actor"]


class DeploymentSerializer(serializers.ModelSerializer[Deployment]):
    agent_name = serializers.CharField(source="agent.name")
    organization = serializers.CharField(source="organization.slug")

    class Meta:
        model = Deployment
        fields = DEPLOYMENT_FIELDS


class DetailSerializer(DeploymentSerializer):
    events = serializers.SerializerMethodField()

    class Meta(DeploymentSerializer.Meta):
        fields = [*DEPLOYMENT_FIELDS, "events"]

    def get_events(self, deployment: Deployment) -> Any:
        return EventSerializer(deployment.events.all()[:20], many=True).data


class CheckSerializer(serializers.ModelSerializer[UpgradeCheck]):
    title = serializers.CharField(source="label")

    class Meta:
        model = UpgradeCheck
        fields = ["stage", "name", "title", "status", "detail", "evidence", "checked_by_email", "note", "checked_at"]


class RolloutSerializer(serializers.ModelSerializer[Rollout]):
    class Meta:
        model = Rollout
        fields = [
            *("service", "service_name", "status", "outcome", "desired_count", "running_count", "pending_count"),
            *("failed_tasks", "from_version", "to_version", "task_definition", "previous_task_definition"),
            *("deployment_id", "rollout_reason", "error_message", "started_at", "completed_at", "last_checked_at"),
            *("strategy", "lifecycle_stage", "stage_began_at", "production_weight", "test_weight", "source_weight"),
            *("target_running", "target_pending", "source_running", "bake_ends_at", "hook", "is_stalled"),
            *("is_overdue", "deadline_at", "is_draining"),
        ]


class HistorySerializer(serializers.ModelSerializer[Upgrade]):
    organization = serializers.CharField(source="organization.slug")
    initiated_by = serializers.CharField(source="initiated_by_email")
    services: Any = serializers.SlugRelatedField(source="rollouts", slug_field="service", many=True, read_only=True)
    message = serializers.CharField()
    error_message = serializers.CharField()
    checks = CheckSerializer(many=True)

    class Meta:
        model = Upgrade
        fields = UPGRADE_FIELDS


class UpgradeSerializer(HistorySerializer):
    services = RolloutSerializer(source="rollouts", many=True)


class Deployments(generics.ListAPIView[Deployment]):
    serializer_class = DeploymentSerializer
    filter_backends = [filters.SearchFilter]
    search_fields = ["agent__name"]

    def get_queryset(self) -> QuerySet[Deployment]:
        mine = Deployment.objects.filter(organization__memberships__user=self.request.user.pk)
        status = self.request.GET.get("status")
        return (mine.filter(status=status) if status else mine).select_related("agent", "organization")


class DeploymentView(generics.RetrieveAPIView[Deployment]):
    serializer_class = DetailSerializer

    def get_queryset(self) -> QuerySet[Deployment]:
        mine = Deployment.objects.filter(organization__memberships__user=self.request.user.pk)
        return mine.select_related("agent", "organization")


class Events(generics.ListAPIView[DeploymentEvent]):
    serializer_class = EventSerializer

    def get_queryset(self) -> QuerySet[DeploymentEvent]:
        mine = Deployment.objects.filter(organization__memberships__user=self.request.user.pk)
        return DeploymentEvent.objects.filter(deployment=generics.get_object_or_404(mine, pk=self.kwargs["pk"]))


class History(generics.ListAPIView[Upgrade]):
    serializer_class = HistorySerializer

    def get_queryset(self) -> QuerySet[Upgrade]:
        mine = Upgrade.objects.filter(organization__memberships__user=self.request.user.pk)
        return mine.select_related("organization").prefetch_related("rollouts", "checks")


class UpgradeView(generics.RetrieveAPIView[Upgrade]):
    serializer_class = UpgradeSerializer
    lookup_field = "upgrade_id"
    queryset = Upgrade.objects.all()

    def get_queryset(self) -> QuerySet[Upgrade]:
        mine = super().get_queryset().filter(organization__memberships__user=self.request.user.pk)
        return mine.select_related("organization").prefetch_related("rollouts", "checks")


urlpatterns = [
    path("deployments", Deployments.as_view()),
    path("deployments/<uuid:pk>", DeploymentView.as_view()),
    path("deployments/<uuid:pk>/events", Events.as_view()),
    path("upgrades", History.as_view()),
    path("upgrades/<str:upgrade_id>", UpgradeView.as_view()),
]
