"""Why a message was not delivered, in better words. The database does not notice."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('portal', '0009_audit_probed_again'),
    ]

    operations = [
        migrations.AlterField(
            model_name='notificationdelivery',
            name='failure',
            field=models.CharField(choices=[('refused_address', 'The portal may not reach this address.'), ('no_answer', 'No answer, or none in time.'), ('redirected', 'Redirected; redirects are not followed. Give the final address.'), ('rejected', 'The receiver rejected it.'), ('busy', 'The receiver asked to come back later.'), ('broken', 'The receiver failed.'), ('gone', 'The receiver said it is gone for good: the channel was switched off.'), ('mail_rejected', 'The mail server rejected the message or its addresses.'), ('mail_down', 'The mail server could not be used.'), ('unreadable', 'Target or signing secret cannot be read: SECRET_KEY was changed. Type the target in again, make a new secret.'), ('switched_off', 'The channel was switched off before it was sent.'), ('queue_full', 'Too many messages were waiting for this channel.'), ('worker_died', 'The portal died while sending; whether it arrived is not known.'), ('portal_failed', 'The portal failed to send it; its log says why.')], max_length=20, null=True),
        ),
    ]
