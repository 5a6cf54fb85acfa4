"""Add API tokens and the kinds of their audit rows. Row-level security is in 0051."""

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
import uuid
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('portal', '0043_open_request'),
    ]

    operations = [
        migrations.AlterField(
            model_name='auditevent',
            name='kind',
            field=models.CharField(choices=[('upgrade.triggered', 'Upgrade triggered'), ('upgrade.stop_requested', 'Upgrade stop requested'), ('upgrade.decided', 'Decided at a pause'), ('upgrade.ended', 'Upgrade ended'), ('upgrade.rollback_triggered', 'Rollback triggered'), ('upgrade.check_signed', 'Validation check signed'), ('upgrade.validated', 'Upgrade validated'), ('upgrade.probed_again', 'Checks rerun'), ('channel.created', 'Notification channel created'), ('channel.changed', 'Notification channel changed'), ('channel.removed', 'Notification channel removed'), ('channel.tested', 'Notification channel tested'), ('agent.created', 'Agent created'), ('agent.changed', 'Agent changed'), ('deployment.created', 'Deployment created'), ('deployment.scaled', 'Deployment scaled'), ('deployment.stop_requested', 'Deployment stop requested'), ('deployment.restarted', 'Deployment restarted'), ('deployment.killed', 'Deployment killed'), ('deployment.changed_outside', 'Deployment changed outside the portal'), ('organization.created', 'Organization created'), ('organization.changed', 'Organization changed'), ('organization.connection_tested', 'AWS connection tested'), ('membership.added', 'Member added'), ('membership.accepted', 'Membership accepted'), ('membership.declined', 'Membership declined'), ('membership.left', 'Left the organization'), ('membership.changed', 'Membership changed'), ('membership.removed', 'Member removed'), ('token.created', 'API token created'), ('token.revoked', 'API token revoked'), ('person.created', 'Person created'), ('person.changed', 'Person changed'), ('person.password_set', 'Password set by staff'), ('person.two_factor_removed', 'Two-factor authentication removed by staff'), ('person.password_changed', 'Password changed'), ('person.password_reset', 'Password reset with the link of an e-mail'), ('person.second_factor_added', 'Second factor added'), ('person.second_factor_removed', 'Second factor removed'), ('person.recovery_codes_generated', 'Recovery codes generated'), ('person.recovery_codes_viewed', 'Recovery codes viewed'), ('person.recovery_codes_downloaded', 'Recovery codes downloaded'), ('session.signed_in', 'Signed in'), ('session.signed_out', 'Signed out'), ('session.sign_in_failed', 'Sign-in failed'), ('upgrade.refused', 'Upgrade action refused'), ('deployment.refused', 'Deployment action refused'), ('agent.refused', 'Change of an agent refused'), ('membership.refused', 'Change of a member refused'), ('channel.refused', 'Change of a notification channel refused'), ('token.refused', 'Change of an API token refused'), ('organization.refused', 'Change of a setting refused'), ('data.exported', 'Data exported'), ('staff.entered', 'Staff entered the organization'), ('staff.left', 'Staff left the organization'), ('staff.access_expired', 'Staff access expired'), ('staff.read', 'Read by staff'), ('audit.pruned', 'Old audit rows exported and deleted')], max_length=60),
        ),
        migrations.CreateModel(
            name='ApiToken',
            fields=[
                ('id', models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('personal', 'Personal'), ('organization', 'Organization')], max_length=12)),
                ('name', models.CharField(max_length=80)),
                ('secret_hash', models.CharField(help_text='SHA-256 of the whole token, in hexadecimal.', max_length=64, unique=True)),
                ('hint', models.CharField(help_text='The beginning of the token, by which people recognize it.', max_length=12)),
                ('scopes', django.contrib.postgres.fields.ArrayField(base_field=models.CharField(choices=[('read', 'Read: everything that a viewer sees'), ('deploy', 'Deploy: change agents and deployments'), ('upgrade', 'Upgrade: trigger, stop and roll back upgrades'), ('approve', 'Approve: decide at pauses, sign validations')], max_length=10), size=None)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('expires_at', models.DateTimeField()),
                ('last_used_at', models.DateTimeField(null=True)),
                ('revoked_at', models.DateTimeField(null=True)),
                ('organization', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to='portal.organization')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'indexes': [models.Index(fields=['organization', '-created_at'], name='api_token_newest_first')],
                'constraints': [models.CheckConstraint(condition=models.Q(('kind__in', ['personal', 'organization'])), name='api_token_kind_known')],
            },
        ),
    ]
