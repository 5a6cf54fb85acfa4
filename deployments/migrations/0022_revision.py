"""Count the changes of a deployment that a page shows. The previous release does not know the column: a trigger writes it."""

from django.db import migrations, models

from portal.database.revisions import count_revisions

UNSEEN = (
    *("next_check_at", "lease_until", "lease_epoch", "has_read_slot", "watched_until", "doubted_at"),
    "last_checked_at",  # shown, but a 304 says it in a header
)


class Migration(migrations.Migration):

    dependencies = [
        ('deployments', '0021_due_clusters'),
    ]

    operations = [
        migrations.AddField(
            model_name='deployment',
            name='revision',
            field=models.BigIntegerField(db_default=0, default=0, editable=False, help_text='Counts its changes that pages show. Only a trigger writes it.'),
        ),
        migrations.RunSQL(*count_revisions("deployments_deployment", unseen=UNSEEN)),
    ]
