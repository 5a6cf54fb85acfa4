"""Reword labels, help texts and validation messages. Does not change the database schema."""

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0012_audit_of_subject"),
    ]

    operations = [
        migrations.AlterField(
            model_name="auditevent",
            name="actor_email",
            field=models.CharField(help_text="As it was then; `system` for the portal itself.", max_length=254),
        ),
        migrations.AlterField(
            model_name="auditevent",
            name="kind",
            field=models.CharField(
                choices=[
                    ("upgrade.triggered", "Upgrade triggered"),
                    ("upgrade.stop_requested", "Upgrade stop requested"),
                    ("upgrade.ended", "Upgrade ended"),
                    ("upgrade.rollback_triggered", "Rollback triggered"),
                    ("upgrade.check_signed", "Validation check signed"),
                    ("upgrade.validated", "Upgrade validated"),
                    ("upgrade.probed_again", "Checks rerun"),
                    ("channel.created", "Notification channel created"),
                    ("channel.changed", "Notification channel changed"),
                    ("channel.removed", "Notification channel removed"),
                    ("channel.tested", "Notification channel tested"),
                    ("agent.created", "Agent created"),
                    ("agent.changed", "Agent changed"),
                    ("deployment.created", "Deployment created"),
                    ("deployment.scaled", "Deployment scaled"),
                    ("deployment.stop_requested", "Deployment stop requested"),
                    ("deployment.restarted", "Deployment restarted"),
                    ("deployment.killed", "Deployment killed"),
                    ("deployment.changed_outside", "Deployment changed outside the portal"),
                    ("organization.created", "Organization created"),
                    ("organization.changed", "Organization changed"),
                    ("organization.connection_tested", "AWS connection tested"),
                    ("membership.added", "Member added"),
                    ("membership.changed", "Membership changed"),
                    ("membership.removed", "Member removed"),
                    ("person.created", "Person created"),
                    ("person.changed", "Person changed"),
                    ("person.password_set", "Password set by staff"),
                    ("person.two_factor_removed", "Two-factor authentication removed by staff"),
                    ("session.signed_in", "Signed in"),
                    ("session.signed_out", "Signed out"),
                ],
                max_length=60,
            ),
        ),
        migrations.AlterField(
            model_name="auditevent",
            name="subject",
            field=models.CharField(help_text="Id of the affected object.", max_length=254),
        ),
        migrations.AlterField(
            model_name="notificationchannel",
            name="sealed_old_secret",
            field=models.TextField(blank=True, help_text="Previous secret. Signs too until old_secret_until."),
        ),
        migrations.AlterField(
            model_name="notificationchannel",
            name="sealed_secret",
            field=models.TextField(blank=True, help_text="Signing secret of a webhook, `whsec_..`."),
        ),
        migrations.AlterField(
            model_name="notificationchannel",
            name="tested_at",
            field=models.DateTimeField(help_text="Time of the last test.", null=True),
        ),
        migrations.AlterField(
            model_name="notificationdelivery",
            name="data",
            field=models.JSONField(default=dict, help_text="`data` of a webhook's body, at the time of the event."),
        ),
        migrations.AlterField(
            model_name="notificationdelivery",
            name="failure",
            field=models.CharField(
                choices=[
                    ("refused_address", "The portal is not allowed to reach this address."),
                    ("no_answer", "No answer, or none in time."),
                    ("redirected", "Redirected. Redirects are not followed: enter the final address."),
                    ("rejected", "The receiver rejected it."),
                    ("busy", "The receiver asked to come back later."),
                    ("broken", "The receiver failed."),
                    ("gone", "The receiver is permanently gone. The channel was switched off."),
                    ("mail_rejected", "The mail server rejected the message or its addresses."),
                    ("mail_down", "The mail server could not be used."),
                    (
                        "unreadable",
                        "SECRET_KEY was changed, so target or secret cannot be read. Enter the target again, or create a new secret.",
                    ),
                    ("switched_off", "The channel was switched off before the message was sent."),
                    ("queue_full", "Too many messages were waiting for this channel."),
                    ("worker_died", "The portal stopped while sending. It is not known whether the message arrived."),
                    ("portal_failed", "The portal failed to send it. See its log."),
                ],
                max_length=20,
                null=True,
            ),
        ),
        migrations.AlterField(
            model_name="notificationdelivery",
            name="path",
            field=models.CharField(help_text="Path of the page about it, under PORTAL_URL.", max_length=300),
        ),
        migrations.AlterField(
            model_name="notificationdelivery",
            name="subject",
            field=models.CharField(help_text="Id of the object that it is about.", max_length=120),
        ),
        migrations.AlterField(
            model_name="notificationdelivery",
            name="tries",
            field=models.SmallIntegerField(default=0, help_text="Attempts since it was queued or last sent again."),
        ),
        migrations.AlterField(
            model_name="organization",
            name="deployment_execution_role_arn",
            field=models.CharField(
                blank=True,
                help_text="Pulls images, reads secrets, writes logs. Empty: the platform's agent service's role.",
                max_length=600,
                validators=[
                    django.core.validators.RegexValidator(
                        "^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]{1,512}\\Z",
                        "Use the role's ARN: arn:aws:iam::<account>:role/<name>.",
                    )
                ],
                verbose_name="execution role of agents",
            ),
        ),
        migrations.AlterField(
            model_name="organization",
            name="deployment_external_id",
            field=models.CharField(
                blank=True,
                help_text="The sts:ExternalId that the role's trust policy requires.",
                max_length=1224,
                validators=[
                    django.core.validators.RegexValidator(
                        "^[A-Za-z0-9_+=,.@:/-]{2,1224}\\Z", "Use 2 to 1224 letters, digits and _+=,.@:/-"
                    )
                ],
                verbose_name="external id",
            ),
        ),
        migrations.AlterField(
            model_name="organization",
            name="deployment_region",
            field=models.CharField(
                default="eu-central-1",
                max_length=50,
                validators=[
                    django.core.validators.RegexValidator(
                        "^[a-z]{2}(-[a-z]+)+-[0-9]\\Z", "Use an AWS region such as eu-central-1."
                    )
                ],
                verbose_name="AWS region",
            ),
        ),
        migrations.AlterField(
            model_name="organization",
            name="deployment_role_arn",
            field=models.CharField(
                blank=True,
                help_text="Empty: the portal's own credentials.",
                max_length=600,
                validators=[
                    django.core.validators.RegexValidator(
                        "^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]{1,512}\\Z",
                        "Use the role's ARN: arn:aws:iam::<account>:role/<name>.",
                    )
                ],
                verbose_name="role to assume",
            ),
        ),
        migrations.AlterField(
            model_name="organization",
            name="deployment_security_groups",
            field=models.CharField(
                blank=True,
                help_text="Comma-separated ids. Empty: those of the platform's agent service.",
                max_length=300,
                validators=[
                    django.core.validators.RegexValidator(
                        "^sg-[0-9a-f]{8,17}( *, *sg-[0-9a-f]{8,17})*\\Z",
                        "Use ids such as sg-0a1b2c3d, separated by commas.",
                    )
                ],
                verbose_name="security groups of agents",
            ),
        ),
        migrations.AlterField(
            model_name="organization",
            name="deployment_subnets",
            field=models.CharField(
                blank=True,
                help_text="Comma-separated ids. Empty: those of the platform's agent service.",
                max_length=600,
                validators=[
                    django.core.validators.RegexValidator(
                        "^subnet-[0-9a-f]{8,17}( *, *subnet-[0-9a-f]{8,17})*\\Z",
                        "Use ids such as subnet-0a1b2c3d, separated by commas.",
                    )
                ],
                verbose_name="subnets of agents",
            ),
        ),
        migrations.AlterField(
            model_name="organization",
            name="deployment_task_role_arn",
            field=models.CharField(
                blank=True,
                help_text="What agents may do in AWS. Empty: the platform's agent service's role.",
                max_length=600,
                validators=[
                    django.core.validators.RegexValidator(
                        "^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]{1,512}\\Z",
                        "Use the role's ARN: arn:aws:iam::<account>:role/<name>.",
                    )
                ],
                verbose_name="task role of agents",
            ),
        ),
        migrations.AlterField(
            model_name="organization",
            name="environment",
            field=models.CharField(
                default="production", help_text="Shown with every action, e.g. production or staging.", max_length=40
            ),
        ),
        migrations.AlterField(
            model_name="organization",
            name="is_active",
            field=models.BooleanField(
                default=True,
                help_text="Untick to suspend: members lose access. Running rollouts are still observed.",
                verbose_name="active",
            ),
        ),
        migrations.AlterField(
            model_name="organization",
            name="platform_agent_url",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="Base address, probed at /health and /mcp/health. Empty: these checks stay not known.",
                max_length=300,
                validators=[
                    django.core.validators.RegexValidator(
                        "^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?\\Z",
                        "Use an address such as https://agent.example.com or http://orchestrator.acme.local:8081.",
                    )
                ],
                verbose_name="address of the agent service",
            ),
        ),
        migrations.AlterField(
            model_name="organization",
            name="platform_orchestrator_url",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="Base address, probed at /health and /api/v1/llm-providers/status.",
                max_length=300,
                validators=[
                    django.core.validators.RegexValidator(
                        "^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?\\Z",
                        "Use an address such as https://agent.example.com or http://orchestrator.acme.local:8081.",
                    )
                ],
                verbose_name="address of the orchestrator",
            ),
        ),
        migrations.AlterField(
            model_name="organization",
            name="platform_portal_url",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="Base address, probed at /health and /api/v1/auth/session.",
                max_length=300,
                validators=[
                    django.core.validators.RegexValidator(
                        "^https?://[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?\\Z",
                        "Use an address such as https://agent.example.com or http://orchestrator.acme.local:8081.",
                    )
                ],
                verbose_name="address of the customer portal",
            ),
        ),
        migrations.AlterField(
            model_name="organization",
            name="slug",
            field=models.SlugField(help_text="Part of every URL. Do not change it once it is in use.", unique=True),
        ),
    ]
