"""Export of old audit rows, and their deletion once the file is on disk. Run by the role `portal_maintenance`.

The application's role may not delete audit rows. The function portal_audit_prune (migration 0019) does it for the
maintenance role, and only for the rows that the caller says it exported. A checkpoint with the last hash stays, from
which `verify_audit` begins.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.db import connection, transaction
from django.db.models import Min, TextField
from django.db.models.expressions import RawSQL

from portal.audit import record
from portal.audit_chain import Chain, call, read_chains, verify
from portal.models import SITE_CHAIN, AuditEvent, AuditKind, AuditQuerySet, Organization
from portal.tenancy import all_organizations

ROWS_AT_ONCE = 2000


class PruningRefused(Exception):
    """Nothing was deleted. The message says why."""


@dataclass(frozen=True)
class Part:
    """The beginning of a chain that is older than the date, up to a position, with the hash of its last row."""

    chain: Chain
    up_to: int
    last_hash: str

    @property
    def rows(self) -> int:
        return self.up_to - self.chain.start_position


@all_organizations("the chain of every organization is pruned")
def prune(before: datetime, file: Path) -> list[Part]:
    """Verify all chains, export the rows from before the date to a new file, and then delete them.

    The file has one JSON object a line: `hash`, and `event`, exactly the text that was hashed.

    *Raises* PruningRefused for a broken chain, FileExistsError, OSError. Nothing is deleted unless the file is on disk.
    """
    findings = verify().findings
    if findings:
        raise PruningRefused(f"A chain is broken, so nothing was deleted. {findings[0]}. See verify_audit.")
    parts = [part for part in (find_part(chain, before) for chain in read_chains()) if part]
    if parts:
        checksum = export(parts, file)
        for part in parts:
            delete(part, before, checksum)
    return parts


def find_part(chain: Chain, before: datetime) -> Part | None:
    """Return the rows that can go: all before the first one that stays. None if there are none."""
    rows = get_rows(chain)
    first_kept = rows.filter(created_at__gte=before).aggregate(first=Min("position"))["first"]
    up_to = chain.end_position if first_kept is None else first_kept - 1
    if up_to <= chain.start_position:
        return None
    return Part(chain, up_to, rows.values_list("hash", flat=True).get(position=up_to))


def get_rows(chain: Chain) -> AuditQuerySet:
    if chain.name == SITE_CHAIN:
        return AuditEvent.objects.filter(organization__isnull=True)
    return AuditEvent.objects.filter(organization_id=chain.name)


def export(parts: list[Part], file: Path) -> str:
    """Write the rows to a new file that only its owner can read, and onto the disk. Return its SHA-256."""
    digest = hashlib.sha256()
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        for line in lines(parts):
            output.write(line)
            digest.update(line)
        output.flush()
        os.fsync(output.fileno())
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return digest.hexdigest()


def lines(parts: list[Part]) -> Iterator[bytes]:
    for part in parts:
        rows = get_rows(part.chain).filter(position__lte=part.up_to).order_by("position")
        text = RawSQL("portal_audit_text(portal_auditevent)", [], output_field=TextField())
        for its_hash, event in rows.annotate(text=text).values_list("hash", "text").iterator(ROWS_AT_ONCE):
            if hashlib.sha256(event.encode()).hexdigest() != its_hash:
                raise PruningRefused(f"{part.chain.label} changed during the export, so nothing was deleted.")
            yield f'{{"hash": "{its_hash}", "event": {event}}}\n'.encode()


def delete(part: Part, before: datetime, checksum: str) -> None:
    """Delete the exported rows, and record it in the same chain."""
    chain = part.chain
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL statement_timeout = 0")
        call("portal_audit_prune(%s, %s, %s, %s, %s)", chain.name, part.up_to, part.last_hash, part.rows, checksum)
        organization = None if chain.name == SITE_CHAIN else Organization.objects.get(pk=chain.name)
        data = {"rows": part.rows, "before": before.date().isoformat(), "export_sha256": checksum}
        record(AuditKind.AUDIT_PRUNED, organization=organization, actor=None, subject=chain.label, data=data)
