import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    """Add who asked for a deployment's wanted state. The previous release leaves it empty."""

    dependencies = [("deployments", "0004_generations"), migrations.swappable_dependency(settings.AUTH_USER_MODEL)]

    operations = [
        migrations.AddField(
            "deployment",
            "requested_by",
            models.ForeignKey(
                help_text="Who asked for the wanted state. Null: asked before this column existed.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
    ]
