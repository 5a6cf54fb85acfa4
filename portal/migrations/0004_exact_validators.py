"""Names that AWS takes, exactly: plain digits and letters, and no line break behind them."""

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0003_audit_kinds"),
    ]

    operations = [
        migrations.AlterField(
            model_name="organization",
            name="deployment_cluster",
            field=models.CharField(
                blank=True,
                help_text="Empty: <stack>-cluster.",
                max_length=255,
                validators=[
                    django.core.validators.RegexValidator(
                        "^[A-Za-z0-9_-]{1,255}\\Z", "Use letters, digits, hyphens and underscores, 255 at most."
                    )
                ],
                verbose_name="ECS cluster",
            ),
        ),
        migrations.AlterField(
            model_name="organization",
            name="deployment_external_id",
            field=models.CharField(
                blank=True,
                help_text="What the role's trust policy asks for as sts:ExternalId.",
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
                        "^[a-z]{2}(-[a-z]+)+-[0-9]\\Z", "Name an AWS region such as eu-central-1."
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
                        "Give the role's ARN: arn:aws:iam::<account>:role/<name>.",
                    )
                ],
                verbose_name="role to assume",
            ),
        ),
        migrations.AlterField(
            model_name="organization",
            name="deployment_stack",
            field=models.CharField(
                blank=True,
                help_text="Services are <stack>-agent-service, <stack>-orchestrator-service, <stack>-customer-portal-service.",
                max_length=128,
                validators=[
                    django.core.validators.RegexValidator(
                        "^[A-Za-z][A-Za-z0-9-]{0,127}\\Z",
                        "Start with a letter; then letters, digits and hyphens, 128 at most.",
                    )
                ],
                verbose_name="stack",
            ),
        ),
    ]
