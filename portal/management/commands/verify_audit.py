"""`manage.py verify_audit`: verify the hash chains of the audit trail."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from portal.audit_chain import verify_and_store


class Command(BaseCommand):
    help = (
        "Verify the audit trail: name the first altered, missing or inserted row of each chain, and exit with 1 if "
        "there is one. Prints the last hash of each chain: keep it outside of the database."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        verified = verify_and_store()
        for chain in verified.chains:
            if chain.end_position:
                self.stdout.write(f"{chain.label}: {chain.end_position} {chain.end_hash}")
        for finding in verified.findings:
            self.stderr.write(str(finding))
        if verified.findings:
            raise CommandError(f"{len(verified.findings)} of {len(verified.chains)} chains are broken.")
        self.stdout.write(
            f"{verified.rows} rows in {len(verified.chains)} chains: nothing altered, missing or inserted."
        )
