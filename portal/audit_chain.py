"""Verification of the audit trail's hash chains. The database makes the links when rows are written (migration 0019).

Each organization has a chain; rows without an organization are in the chain `site`. A row's hash is the SHA-256 of all
its columns, its position and the hash of the row before, so a row that is altered, removed or inserted breaks its chain.
Rewriting the whole chain would hide this, so keep the last hashes, which `verify_audit` prints, somewhere else.
"""

from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from django.db import connection
from django.db.models import Q
from django.db.models.functions import Now
from prometheus_client.core import GaugeMetricFamily

from portal.models import AuditVerification
from portal.monitoring.prometheus import Gauges, seconds_since
from portal.tenancy import all_organizations

# Rows per statement, so that none takes long and no transaction stays open.
SLICE_ROWS = 10_000
VERIFIED_EVERY = timedelta(hours=24)
# A verification that has not ended by then counts as lost, and is started again.
LOST_AFTER = timedelta(hours=2)
MEANING = {
    "altered": "was altered: its hash is not that of its columns",
    "missing": "is missing",
    "inserted": "was inserted or replaced: it does not follow the row before it",
    "unlike_the_end": "is not the one that was written last",
}


@dataclass(frozen=True)
class Chain:
    """A chain between its newest checkpoint and its last link. `stray` is a row outside of this part."""

    name: str
    label: str
    start_position: int
    start_hash: str
    end_position: int
    end_hash: str
    stray_position: int | None
    stray_id: int | None


@dataclass(frozen=True)
class Finding:
    """The first broken link of a chain. `audit_id` is None for a missing row."""

    chain: str
    position: int
    kind: str
    audit_id: int | None = None

    def __str__(self) -> str:
        row = f"row {self.position}" + (f" (audit id {self.audit_id})" if self.audit_id is not None else "")
        return f"{self.chain}: {row} {MEANING[self.kind]}"


@dataclass
class Verified:
    """The result of a verification of all chains."""

    rows: int = 0
    chains: list[Chain] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@all_organizations("the chain of every organization is verified")
def verify() -> Verified:
    """Verify every chain from its newest checkpoint. *Costs* about 15 µs a row, in the database."""
    verified = Verified(chains=read_chains())
    for chain in verified.chains:
        rows, finding = verify_chain(chain)
        if finding:
            # Rows that were pruned meanwhile are not missing: verify again from the new checkpoint.
            now = next((each for each in read_chains() if each.name == chain.name), chain)
            rows, finding = verify_chain(now)
        verified.rows += rows
        if finding:
            verified.findings.append(finding)
    return verified


def verify_chain(chain: Chain) -> tuple[int, Finding | None]:
    """Return the number of verified rows, and the first broken link or None."""
    if chain.stray_id is not None and chain.stray_position is not None:
        return 0, Finding(chain.label, chain.stray_position, "inserted", chain.stray_id)
    rows, position, last_hash = 0, chain.start_position, chain.start_hash
    while position < chain.end_position:
        arguments = [chain.name, position, last_hash, chain.end_position, SLICE_ROWS]
        ((count, last, its_hash, kind, at, audit_id),) = call("portal_audit_verify(%s, %s, %s, %s, %s)", *arguments)
        rows += count
        if kind:
            return rows, Finding(chain.label, at, kind, audit_id)
        if not count:
            return rows, Finding(chain.label, position + 1, "missing")
        position, last_hash = last, its_hash
    if last_hash != chain.end_hash:
        return rows, Finding(chain.label, position, "unlike_the_end")
    return rows, None


def read_chains() -> list[Chain]:
    return [Chain(*row) for row in call("portal_audit_chains()")]


def call(function: str, *arguments: Any) -> list[Any]:
    """Return the rows of one of the audit trail's functions in the database."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {function}", arguments)  # noqa: S608 - our own names
        rows: list[Any] = cursor.fetchall()
    return rows


# --- the daily verification ----------------------------------------------------------------------------------------


def verify_and_store() -> Verified:
    """Verify all chains, and keep the result for the metrics."""
    verified = verify()
    AuditVerification.objects.update_or_create(
        pk=AuditVerification.ONLY,
        defaults={
            "finished_at": Now(),
            "rows": verified.rows,
            "chains": len(verified.chains),
            "findings": [asdict(finding) | {"sentence": str(finding)} for finding in verified.findings],
        },
    )
    return verified


def claim_verification() -> bool:
    """Return whether a verification is due, and mark it as started, so that only one of several schedulers starts it."""
    AuditVerification.objects.get_or_create(pk=AuditVerification.ONLY)
    is_due = Q(finished_at__isnull=True) | Q(finished_at__lt=Now() - VERIFIED_EVERY)
    is_free = Q(started_at__isnull=True) | Q(started_at__lt=Now() - LOST_AFTER)
    return bool(AuditVerification.objects.filter(is_due & is_free).update(started_at=Now()))


def gauges() -> Gauges:
    """Yield the gauges. *Costs* one query. No sample means that the chains were never verified."""
    broken = GaugeMetricFamily("portal_audit_broken_chains", "Chains of the audit trail with a broken link.")
    rows = GaugeMetricFamily("portal_audit_verified_rows", "Audit rows that the last verification read.")
    age = GaugeMetricFamily("portal_audit_verified_age_seconds", "Seconds since the audit trail was last verified.")
    last = (
        AuditVerification.objects.filter(finished_at__isnull=False).annotate(age=seconds_since("finished_at")).first()
    )
    if last is not None:
        broken.add_metric([], len(last.findings))
        rows.add_metric([], last.rows)
        age.add_metric([], last.age)
    yield from (broken, rows, age)
