"""`manage.py reseal`: seal every stored secret with the newest key."""

from collections.abc import Callable
from typing import Any

from allauth.mfa.models import Authenticator
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.db.models import Model, QuerySet

from portal.accounts.second_factors import is_sealed
from portal.models import NotificationChannel
from portal.sealing import Purpose, is_newest, seal, unseal
from portal.tenancy import all_organizations

CHANNEL_FIELDS = ("sealed_target", "sealed_secret", "sealed_old_secret")
MFA_FIELDS = ("secret", "seed")


class Command(BaseCommand):
    help = (
        "Seal the stored secrets (notification channels, second factors) with the present SECRET_KEY. Run it after the "
        "key has changed, with the old one in SECRET_KEY_FALLBACKS, and once after the release that seals second factors."
    )

    @all_organizations("the channels of every organization are sealed again")
    def handle(self, *args: Any, **options: Any) -> None:
        self.unreadable = 0
        channels = self.reseal_rows(NotificationChannel.objects.order_by("pk"), self.reseal_channel)
        factors = self.reseal_rows(Authenticator.objects.order_by("pk"), self.reseal_authenticator)
        self.stdout.write(f"Sealed with the newest key: {channels} channels and {factors} second factors.")
        if self.unreadable:
            raise CommandError(
                f"{self.unreadable} secrets cannot be read with SECRET_KEY or SECRET_KEY_FALLBACKS. They were kept."
            )

    def reseal_rows(self, rows: QuerySet[Any], reseal: Callable[[Any], bool]) -> int:
        """Reseal each row in its own transaction, and return how many changed."""
        return sum(self.reseal_row(rows, pk, reseal) for pk in rows.values_list("pk", flat=True))

    @transaction.atomic
    def reseal_row(self, rows: QuerySet[Any], pk: Any, reseal: Callable[[Model], bool]) -> bool:
        row = rows.select_for_update(of=("self",)).filter(pk=pk).first()
        return row is not None and reseal(row)

    def reseal_channel(self, channel: NotificationChannel) -> bool:
        before = [getattr(channel, field) for field in CHANNEL_FIELDS]
        after = [self.reseal(sealed, Purpose.NOTIFICATIONS) if sealed else sealed for sealed in before]
        if before == after:
            return False
        for field, sealed in zip(CHANNEL_FIELDS, after, strict=True):
            setattr(channel, field, sealed)
        channel.save(update_fields=CHANNEL_FIELDS)
        return True

    def reseal_authenticator(self, authenticator: Authenticator) -> bool:
        data = dict(authenticator.data)
        for field in MFA_FIELDS:
            if field in data:
                data[field] = self.reseal_seed(data[field])
        if "migrated_codes" in data:
            data["migrated_codes"] = [self.reseal_seed(code) for code in data["migrated_codes"]]
        if data == authenticator.data:
            return False
        authenticator.data = data
        authenticator.save(update_fields=["data"])
        return True

    def reseal_seed(self, text: str) -> str:
        return self.reseal(text, Purpose.MFA) if is_sealed(text) else seal(text, Purpose.MFA)

    def reseal(self, sealed: str, purpose: Purpose) -> str:
        """Return the secret sealed with the newest key; unchanged if it is already, or if it cannot be read."""
        if is_newest(sealed, purpose):
            return sealed
        secret = unseal(sealed, purpose)
        if secret is None:
            self.unreadable += 1
            return sealed
        return seal(secret, purpose)
