"""Probes that are asked for again are audited; evidence is read, and leaves no row. The database does not notice."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('portal', '0008_notifications'),
    ]

    operations = [
        migrations.AlterField(
            model_name='auditevent',
            name='kind',
            field=models.CharField(choices=[('upgrade.triggered', 'Upgrade triggered'), ('upgrade.stop_requested', 'Stop of an upgrade requested'), ('upgrade.ended', 'Upgrade ended'), ('upgrade.rollback_triggered', 'Rollback triggered'), ('upgrade.check_signed', 'Validation check signed'), ('upgrade.validated', 'Upgrade validated'), ('upgrade.probed_again', 'Probes of an upgrade asked for again'), ('channel.created', 'Notification channel created'), ('channel.changed', 'Notification channel changed'), ('channel.removed', 'Notification channel removed'), ('channel.tested', 'Notification channel tested'), ('agent.created', 'Agent created'), ('agent.changed', 'Agent changed'), ('deployment.created', 'Deployment created'), ('deployment.scaled', 'Deployment scaled'), ('deployment.stop_requested', 'Stop of a deployment requested'), ('deployment.restarted', 'Deployment restarted'), ('deployment.killed', 'Deployment killed'), ('deployment.changed_outside', 'Deployment changed outside the portal'), ('organization.created', 'Organization created'), ('organization.changed', 'Organization changed'), ('organization.connection_tested', 'AWS connection tested'), ('membership.added', 'Member added'), ('membership.changed', 'Membership changed'), ('membership.removed', 'Member removed'), ('person.created', 'Person created'), ('person.changed', 'Person changed'), ('person.password_set', 'Password set by staff'), ('person.two_factor_removed', 'Two-factor authentication removed by staff'), ('session.signed_in', 'Signed in'), ('session.signed_out', 'Signed out')], max_length=60),
        ),
    ]
