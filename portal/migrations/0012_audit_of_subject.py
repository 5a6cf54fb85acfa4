"""The audit rows of one thing are found by an index. Made beside the writers: nobody waits for it."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('portal', '0011_one_address_each'),
    ]

    operations = [
        AddIndexConcurrently(
            model_name='auditevent',
            index=models.Index(fields=['organization', 'subject', 'created_at'], name='audit_of_subject'),
        ),
    ]
