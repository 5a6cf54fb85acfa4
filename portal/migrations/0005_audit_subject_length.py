"""An audit row's subject may be an e-mail address, which may have 254 characters. No rewrite, no long lock."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("portal", "0004_exact_validators")]

    operations = [
        migrations.AlterField(
            model_name="auditevent",
            name="subject",
            field=models.CharField(help_text="Id of what it happened to.", max_length=254),
        ),
    ]
