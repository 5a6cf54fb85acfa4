"""Add the kind of audit event for a decision at a pause."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('portal', '0015_second_approver'),
    ]

    operations = [
        migrations.AlterField(
            model_name='auditevent',
            name='kind',
            field=models.CharField(choices=[('upgrade.triggered', 'Upgrade triggered'), ('upgrade.stop_requested', 'Upgrade stop requested'), ('upgrade.decided', 'Decided at a pause'), ('upgrade.ended', 'Upgrade ended'), ('upgrade.rollback_triggered', 'Rollback triggered'), ('upgrade.check_signed', 'Validation check signed'), ('upgrade.validated', 'Upgrade validated'), ('upgrade.probed_again', 'Checks rerun'), ('channel.created', 'Notification channel created'), ('channel.changed', 'Notification channel changed'), ('channel.removed', 'Notification channel removed'), ('channel.tested', 'Notification channel tested'), ('agent.created', 'Agent created'), ('agent.changed', 'Agent changed'), ('deployment.created', 'Deployment created'), ('deployment.scaled', 'Deployment scaled'), ('deployment.stop_requested', 'Deployment stop requested'), ('deployment.restarted', 'Deployment restarted'), ('deployment.killed', 'Deployment killed'), ('deployment.changed_outside', 'Deployment changed outside the portal'), ('organization.created', 'Organization created'), ('organization.changed', 'Organization changed'), ('organization.connection_tested', 'AWS connection tested'), ('membership.added', 'Member added'), ('membership.changed', 'Membership changed'), ('membership.removed', 'Member removed'), ('person.created', 'Person created'), ('person.changed', 'Person changed'), ('person.password_set', 'Password set by staff'), ('person.two_factor_removed', 'Two-factor authentication removed by staff'), ('session.signed_in', 'Signed in'), ('session.signed_out', 'Signed out')], max_length=60),
        ),
    ]
