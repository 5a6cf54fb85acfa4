"""Add saved views and the default ones, with their row-level security, and the kinds of their audit rows."""

import django.db.models.deletion
import django.db.models.functions.datetime
import django.db.models.functions.text
import uuid
from django.conf import settings
from django.db import migrations, models

POLICY = """
ALTER TABLE {0} ENABLE ROW LEVEL SECURITY;
CREATE POLICY organizations ON {0} USING (
    (SELECT current_setting('portal.organizations', true) = '*')
    OR organization_id = ANY ((SELECT portal_organizations())::uuid[])
);
"""
UNDO = "DROP POLICY organizations ON {0}; ALTER TABLE {0} DISABLE ROW LEVEL SECURITY;"


def secure(table: str) -> migrations.RunSQL:
    return migrations.RunSQL(POLICY.format(table), UNDO.format(table))


class Migration(migrations.Migration):

    dependencies = [
        ('portal', '0052_times_and_links'),
    ]

    operations = [
        migrations.AlterField(
            model_name='auditevent',
            name='kind',
            field=models.CharField(choices=[('upgrade.triggered', 'Upgrade triggered'), ('upgrade.stop_requested', 'Upgrade stop requested'), ('upgrade.decided', 'Decided at a pause'), ('upgrade.ended', 'Upgrade ended'), ('upgrade.rollback_triggered', 'Rollback triggered'), ('upgrade.check_signed', 'Validation check signed'), ('upgrade.validated', 'Upgrade validated'), ('upgrade.probed_again', 'Checks rerun'), ('channel.created', 'Notification channel created'), ('channel.changed', 'Notification channel changed'), ('channel.removed', 'Notification channel removed'), ('channel.tested', 'Notification channel tested'), ('agent.created', 'Agent created'), ('agent.changed', 'Agent changed'), ('deployment.created', 'Deployment created'), ('deployment.scaled', 'Deployment scaled'), ('deployment.stop_requested', 'Deployment stop requested'), ('deployment.restarted', 'Deployment restarted'), ('deployment.killed', 'Deployment killed'), ('deployment.changed_outside', 'Deployment changed outside the portal'), ('organization.created', 'Organization created'), ('organization.changed', 'Organization changed'), ('organization.connection_tested', 'AWS connection tested'), ('membership.added', 'Member added'), ('membership.accepted', 'Membership accepted'), ('membership.declined', 'Membership declined'), ('membership.left', 'Left the organization'), ('membership.changed', 'Membership changed'), ('membership.removed', 'Member removed'), ('token.created', 'API token created'), ('token.revoked', 'API token revoked'), ('view.shared', 'Saved view shared'), ('view.changed', 'Shared view changed'), ('view.removed', 'Shared view deleted'), ('person.created', 'Person created'), ('person.changed', 'Person changed'), ('person.password_set', 'Password set by staff'), ('person.two_factor_removed', 'Two-factor authentication removed by staff'), ('person.password_changed', 'Password changed'), ('person.password_reset', 'Password reset with the link of an e-mail'), ('person.second_factor_added', 'Second factor added'), ('person.second_factor_removed', 'Second factor removed'), ('person.recovery_codes_generated', 'Recovery codes generated'), ('person.recovery_codes_viewed', 'Recovery codes viewed'), ('person.recovery_codes_downloaded', 'Recovery codes downloaded'), ('session.signed_in', 'Signed in'), ('session.signed_out', 'Signed out'), ('session.sign_in_failed', 'Sign-in failed'), ('upgrade.refused', 'Upgrade action refused'), ('deployment.refused', 'Deployment action refused'), ('agent.refused', 'Change of an agent refused'), ('membership.refused', 'Change of a member refused'), ('channel.refused', 'Change of a notification channel refused'), ('token.refused', 'Change of an API token refused'), ('view.refused', 'Change of a saved view refused'), ('organization.refused', 'Change of a setting refused'), ('data.exported', 'Data exported'), ('staff.entered', 'Staff entered the organization'), ('staff.left', 'Staff left the organization'), ('staff.access_expired', 'Staff access expired'), ('staff.read', 'Read by staff'), ('audit.pruned', 'Old audit rows exported and deleted')], max_length=60),
        ),
        migrations.CreateModel(
            name='SavedView',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('list', models.CharField(choices=[('deployments', 'Deployments'), ('upgrades', 'History of upgrades')], max_length=20)),
                ('name', models.CharField(max_length=60)),
                ('query', models.CharField(help_text="The list's filters, as the query string of its address.", max_length=1000)),
                ('is_shared', models.BooleanField(default=False)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='portal.organization')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
        ),
        migrations.CreateModel(
            name='DefaultView',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('list', models.CharField(choices=[('deployments', 'Deployments'), ('upgrades', 'History of upgrades')], max_length=20)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='portal.organization')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
                ('view', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='defaults', to='portal.savedview')),
            ],
        ),
        migrations.AddConstraint(
            model_name='savedview',
            constraint=models.UniqueConstraint(models.F('organization'), models.F('user'), models.F('list'), django.db.models.functions.text.Lower('name'), name='saved_view_once_by_name'),
        ),
        migrations.AddConstraint(
            model_name='savedview',
            constraint=models.CheckConstraint(condition=models.Q(('list__in', ['deployments', 'upgrades'])), name='saved_view_list_known'),
        ),
        migrations.AddConstraint(
            model_name='defaultview',
            constraint=models.UniqueConstraint(fields=('organization', 'user', 'list'), name='default_view_once'),
        ),
        secure("portal_savedview"),
        secure("portal_defaultview"),
    ]
