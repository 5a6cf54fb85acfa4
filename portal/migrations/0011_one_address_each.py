"""A person's one address is User.email. What allauth copied at resets of passwords goes: it opened an account still after
staff had changed the address. Nothing reads it, so there is nothing to bring back.
"""

from django.db import migrations


def forget_copies(apps, schema_editor):
    apps.get_model("account", "EmailAddress").objects.all().delete()


class Migration(migrations.Migration):

    dependencies = [
        ('portal', '0010_failure_labels'),
        ('account', '0009_emailaddress_unique_primary_email'),
    ]

    operations = [
        migrations.RunPython(forget_copies, migrations.RunPython.noop),
    ]
