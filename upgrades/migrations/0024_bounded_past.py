"""Indexes with which the newest rollouts of a service, and those of a few sweeps, are found without reading the past."""

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models

NEWEST_OF_SERVICE = ["organization", "service", "-completed_at", "-id"]


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("upgrades", "0022_due_work")]

    operations = [
        AddIndexConcurrently(
            "rollout",
            models.Index(
                fields=NEWEST_OF_SERVICE, condition=~models.Q(outcome="not_attempted"), name="rollout_attempted"
            ),
        ),
        AddIndexConcurrently(
            "rollout",
            models.Index(
                fields=NEWEST_OF_SERVICE,
                condition=models.Q(
                    outcome__in=["completed", "completed_early"], started_at__isnull=False, completed_at__isnull=False
                ),
                name="rollout_rolled_out",
            ),
        ),
        AddIndexConcurrently(
            "rollout",
            models.Index(fields=["last_checked_at"], condition=models.Q(is_draining=True), name="rollout_draining"),
        ),
        AddIndexConcurrently(
            "rollout", models.Index(fields=["organization", "task_definition"], name="rollout_by_revision")
        ),
        AddIndexConcurrently(
            "rollout", models.Index(fields=["organization", "previous_task_definition"], name="rollout_by_previous")
        ),
        AddIndexConcurrently(
            "upgrade",
            models.Index(fields=["organization", "target", "-created_at", "-id"], name="upgrade_by_target"),
        ),
        AddIndexConcurrently("upgrade", models.Index(fields=["completed_at"], name="upgrade_completed")),
        RemoveIndexConcurrently("rollout", "rollout_past"),
    ]
