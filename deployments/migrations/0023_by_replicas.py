"""An index for the list's order by replicas. It is built beside the running portal."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("deployments", "0022_revision")]

    operations = [
        AddIndexConcurrently(
            model_name="deployment",
            index=models.Index(
                fields=["organization", "-replicas", "-created_at", "-id"], name="deployment_by_replicas"
            ),
        ),
    ]
