"""Count the changes of an upgrade and its parts that a page shows. The previous release does not know the columns."""

from django.db import migrations, models

from portal.database.revisions import count_revisions

LEASE = ("next_check_at", "lease_until", "lease_epoch")
UNSEEN = {
    # A generated column has no value before the update.
    "upgrade": ("deployment_upgrades", ("initiated_by_lower",)),
    # last_checked_at is shown, but a 304 says it in a header.
    "rollout": ("deployment_upgrade_services", (*LEASE, "last_checked_at", "doubted_at")),
    "upgradecheck": ("deployment_upgrade_checks", ()),
    "validationrun": ("deployment_upgrade_validations", (*LEASE, "steady_since", "reminded_at")),
    "decision": ("deployment_upgrade_decisions", ()),
}


class Migration(migrations.Migration):

    dependencies = [
        ('upgrades', '0026_history_filters'),
    ]

    operations = [
        operation
        for model, (table, unseen) in UNSEEN.items()
        for operation in (
            migrations.AddField(
                model_name=model,
                name='revision',
                field=models.BigIntegerField(db_default=0, default=0, editable=False, help_text='Counts its changes that pages show. Only a trigger writes it.'),
            ),
            migrations.RunSQL(*count_revisions(table, unseen=unseen)),
        )
    ]
