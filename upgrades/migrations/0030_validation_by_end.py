"""An index with which the sweep finds the validation runs of the last day without reading the past."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("upgrades", "0027_revisions")]

    operations = [AddIndexConcurrently("validationrun", models.Index(fields=["ends_at"], name="validation_by_end"))]
