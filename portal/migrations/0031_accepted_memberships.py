"""Count a membership only once the person has accepted it. Existing memberships count as accepted."""

import django.db.models.deletion
from django.db import migrations, models

ACCEPT_EXISTING = "UPDATE portal_membership SET accepted_at = created_at WHERE accepted_at IS NULL"


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0030_end_all_sessions"),
    ]

    operations = [
        migrations.AddField(
            model_name="membership",
            name="accepted_at",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.RunSQL(ACCEPT_EXISTING, migrations.RunSQL.noop),
        migrations.AddField(
            model_name="user",
            name="default_organization",
            field=models.ForeignKey(
                blank=True,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to="portal.organization",
            ),
        ),
        migrations.AlterField(
            model_name="auditevent",
            name="kind",
            field=models.CharField(choices=[('upgrade.triggered', 'Upgrade triggered'), ('upgrade.stop_requested', 'Upgrade stop requested'), ('upgrade.decided', 'Decided at a pause'), ('upgrade.ended', 'Upgrade ended'), ('upgrade.rollback_triggered', 'Rollback triggered'), ('upgrade.check_signed', 'Validation check signed'), ('upgrade.validated', 'Upgrade validated'), ('upgrade.probed_again', 'Checks rerun'), ('channel.created', 'Notification channel created'), ('channel.changed', 'Notification channel changed'), ('channel.removed', 'Notification channel removed'), ('channel.tested', 'Notification channel tested'), ('agent.created', 'Agent created'), ('agent.changed', 'Agent changed'), ('deployment.created', 'Deployment created'), ('deployment.scaled', 'Deployment scaled'), ('deployment.stop_requested', 'Deployment stop requested'), ('deployment.restarted', 'Deployment restarted'), ('deployment.killed', 'Deployment killed'), ('deployment.changed_outside', 'Deployment changed outside the portal'), ('organization.created', 'Organization created'), ('organization.changed', 'Organization changed'), ('organization.connection_tested', 'AWS connection tested'), ('membership.added', 'Member added'), ('membership.accepted', 'Membership accepted'), ('membership.declined', 'Membership declined'), ('membership.left', 'Left the organization'), ('membership.changed', 'Membership changed'), ('membership.removed', 'Member removed'), ('person.created', 'Person created'), ('person.changed', 'Person changed'), ('person.password_set', 'Password set by staff'), ('person.two_factor_removed', 'Two-factor authentication removed by staff'), ('session.signed_in', 'Signed in'), ('session.signed_out', 'Signed out')], max_length=60),
        ),
    ]
