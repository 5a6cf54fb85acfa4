"""Validations of acme's upgrades: roll out, and read rows, runs and messages."""

from portal import tenancy
from tests.conftest import Cast, Engine
from tests.outside import Outside
from upgrades.commands.sign import sign_check
from upgrades.commands.trigger import trigger_upgrade
from upgrades.models import Upgrade, UpgradeCheck, UpgradeEvent, ValidationRun
from upgrades.states import CheckStatus
from upgrades.tasks import maintain_validations


def roll_out(cast: Cast, engine: Engine, service: str = "agent") -> Upgrade:
    return engine.run(trigger_upgrade(cast.acme, actor=cast.operator, service=service, force_new_deployment=True))


def row(upgrade: Upgrade, name: str) -> UpgradeCheck:
    return UpgradeCheck.objects.get(upgrade=upgrade, stage="validation", name=name)


def get_run(upgrade: Upgrade) -> ValidationRun:
    return ValidationRun.objects.get(upgrade=upgrade)


def validation(upgrade: Upgrade) -> str:
    upgrade.refresh_from_db()
    return upgrade.validation


def get_messages(upgrade: Upgrade, kind: str) -> list[str]:
    events = UpgradeEvent.objects.filter(upgrade=upgrade, kind=kind).order_by("created_at", "id")
    return list(events.values_list("message", flat=True))


def sign(upgrade: Upgrade, cast: Cast, check: str, status: CheckStatus = CheckStatus.PASS, note: str = "") -> None:
    sign_check(upgrade, actor=cast.operator, check=check, status=status, note=note)


def completions(server: Outside) -> int:
    return sum(1 for request in server.requests if request.startswith("POST "))


def maintain() -> None:
    with tenancy.inside(tenancy.NOTHING):
        maintain_validations()
