"""Sources of attention: the last proof of the ledger, and of the roll-ups, which the same proof compares with the payments."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from payments.books.ledger import PROVE_EVERY
from payments.models import LedgerEntry
from registry.data import clock, database
from registry.operators.attention import Item, Severity, counted, source
from registry.operators.cells import address_of_list

SQL = database.statements(Path(__file__).parent / "sql" / "attention_books.sql")
LATE = timedelta(seconds=PROVE_EVERY * 2.5)  # two proofs were missed
WRONG = {
    "unbalanced": "payments, refunds or disputes whose lines do not add up to zero",
    "missing": "payments without their three lines",
    "strange": "lines that belong to no booked payment",
    "refunds_off": "refunds that differ from their lines",
    "disputes_off": "disputes that differ from their lines",
}


@source("ledger.proof")
async def ledger(tenant_ids: Sequence[int] | None) -> list[Item]:
    if tenant_ids is not None:
        return []
    return await _proven(
        "The ledger", lambda found: [f"{found[name]:,} {what}" for name, what in WRONG.items() if found.get(name)]
    )


@source("rollups.proof")
async def rollups(tenant_ids: Sequence[int] | None) -> list[Item]:
    if tenant_ids is not None:
        return []
    return await _proven(
        "The roll-ups",
        lambda found: (
            [f"{off:,} differ from their payments, so summaries are wrong"] if (off := found.get("rollups_off")) else []
        ),
    )


async def latest_proof() -> tuple[datetime, bool, dict[str, int]] | None:
    """When, whether of the whole ledger, and the counts of payments.books.ledger.Proof; None: nothing was proven yet."""
    proofs = await database.fetch(SQL["proof"], prepare=False)
    return (proofs[0][0], proofs[0][1], proofs[0][3]) if proofs else None


async def _proven(what: str, wrong: Any) -> list[Item]:
    latest = await latest_proof()
    if latest is None:
        return [
            Item(
                known=False,
                severity=Severity.NOTICE,
                sentence=f"{what} was not proven yet. The first proof runs within half an hour.",
            )
        ]
    at, whole, found = latest
    checked = f"{counted(found['payments'], 'payment')} and {counted(found['lines'], 'line')}, {'all' if whole else 'those since the proof before'}"
    if faults := wrong(found):
        return [
            Item(
                severity=Severity.CRITICAL,
                sentence=f"{what}: the last proof found {'; '.join(faults)}.",
                since=at,
                action="See the ledger",
                admin=address_of_list(LedgerEntry),
            )
        ]
    if clock.now() - at > LATE:
        return [
            Item(
                severity=Severity.WARNING,
                sentence=f"{what}: the last proof was sound, but the next ones did not run.",
                since=at,
            )
        ]
    return [Item(severity=Severity.WELL, sentence=f"{what}: the last proof is sound ({checked}).", since=at)]
