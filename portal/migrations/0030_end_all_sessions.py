"""End all sessions. Their keys were stored readable; from now on only the SHA-256 is (portal/accounts/sessions.py)."""

from typing import Any

from django.db import migrations


def end_all_sessions(apps: Any, schema_editor: Any) -> None:
    apps.get_model("sessions", "Session").objects.all().delete()
    apps.get_model("usersessions", "UserSession").objects.all().delete()


class Migration(migrations.Migration):
    dependencies = [
        ("portal", "0023_row_level_security"),
        ("sessions", "0001_initial"),
        ("usersessions", "0001_initial"),
    ]

    operations = [migrations.RunPython(end_all_sessions, migrations.RunPython.noop)]
