"""The checks of commands and settings notice a typing error."""

import pytest

from tests.deploy.commands import find_mistakes, find_unknown_settings


@pytest.mark.parametrize(
    ("command", "mistake"),
    [
        ("gunicorn --bnd 127.0.0.1:8000 portal.wsgi", "--bnd"),
        ("gunicorn portal.wsgy", "gunicorn needs portal.wsgi"),
        ("celery -A portal worker --concurency 2", "--concurency"),
        ("celery -A portl worker", "not a worker"),
        ("python manage.py run_schedular", "run_schedular"),
        ("pyton manage.py migrate", "unknown program: pyton"),
    ],
)
def test_a_wrong_command_is_noticed(command: str, mistake: str) -> None:
    (found,) = find_mistakes(command.split())

    assert mistake in found


def test_an_unknown_setting_is_noticed() -> None:
    assert find_unknown_settings(["SECRET_KEY", "SECRET_KEYS", "PGPASSWORD"]) == {"SECRET_KEYS"}
