"""Rollbacks of acme's upgrades: the command and the page's address."""

from tests.conftest import Cast
from upgrades.commands.rollback import rollback_upgrade
from upgrades.models import Upgrade


def roll_back(cast: Cast, upgrade: Upgrade) -> Upgrade:
    return rollback_upgrade(upgrade, actor=cast.operator)


def get_page_url(upgrade: Upgrade) -> str:
    return f"/o/acme/upgrades/{upgrade.upgrade_id}/rollback"
