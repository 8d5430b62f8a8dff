"""Proof of the ledger: its sums, and that every payment, refund and dispute has its lines. Lines are written by settling.

A booked payment is three lines that add up to zero: the processor holds the gross (debit), it keeps its fee (credit),
the rest is owed to the tenant (credit). A refund or dispute is two lines, taken from what the processor holds and from what
is owed to the tenant; a failed refund or a won dispute is booked by their reverse.
"""

import logging
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

from payments.models import LedgerProof
from registry.data import database
from registry.data.chores import chore
from registry.data.loop import sync_twin
from registry.telemetry import metrics
from registry.tenants.books import snapshot

log = logging.getLogger(__name__)

SQL = database.statements(Path(__file__).parent / "sql" / "ledger.sql")
PROOFS = {name: database.filled(SQL, name, errors=SQL["errors"]) for name in ("prove", "prove_since")}

PROVE_EVERY = 1800  # seconds between proofs of what is new; `check_books` compares the whole ledger every night
OVERLAP = timedelta(hours=2)  # longer than payments stay uncertain: late settlements were requested within it


@dataclass(frozen=True)
class Proof:
    """Counts of a proof. The ledger is sound if all but the first two are zero."""

    payments: int  # succeeded
    lines: int
    unbalanced: int  # payments, refunds, disputes whose lines do not add up to zero
    missing: int  # succeeded payments without exactly their three lines
    strange: int  # lines of payments that did not succeed, or with another amount, currency or processor
    rollups_off: int  # roll-up rows that differ from their payments
    refunds_off: int = 0  # refunds that differ from their lines or from their payment's sums
    disputes_off: int = 0  # disputes that differ from their lines

    @property
    def sound(self) -> bool:
        wrong = (self.unbalanced, self.missing, self.strange, self.rollups_off, self.refunds_off, self.disputes_off)
        return not any(wrong)


async def prove(*, tenant_id: int | None = None) -> Proof:
    """Check the whole ledger, or one tenant's, in one snapshot."""
    async with snapshot() as conn:
        return await _proof(conn, "prove", tenant=tenant_id)


async def prove_next() -> Proof:
    """The periodic proof: everything since the last sound proof, or the whole ledger if there was none. The result is stored.

    Damage to rows proven before, and missing lines of payments that were uncertain for longer than OVERLAP, are found by the
    nightly check of the books (payments.books.check). After an unsound proof the same span is checked again.
    """
    last = await LedgerProof.async_objects.filter(sound=True).afirst()
    async with snapshot() as conn:
        [(at, last_line)] = await (await conn.execute(SQL["latest"])).fetchall()
        if last is None:
            proof = await _proof(conn, "prove", tenant=None)
        else:
            since = (last.at - OVERLAP).replace(minute=0, second=0, microsecond=0)  # whole hours, as in the roll-ups
            proof = await _proof(conn, "prove_since", since=since, after=last.last_line)
    await LedgerProof.async_objects.acreate(
        at=at, whole=last is None, last_line=last_line, sound=proof.sound, found=asdict(proof)
    )
    return proof


@chore("prove-ledger", every=PROVE_EVERY)
async def prove_ledger() -> None:
    """The scheduled proof, counted and logged."""
    proof = await prove_next()
    metrics.LEDGER_PROOFS.labels("sound" if proof.sound else "unsound").inc()
    if proof.sound:
        log.info("ledger proven", extra={"payments": proof.payments, "lines": proof.lines})
    else:
        log.error("ledger does not add up", extra={"proof": str(proof)})


async def _proof(conn: AsyncConnection, statement: str, **params: Any) -> Proof:
    [row] = await (await conn.execute(PROOFS[statement], params)).fetchall()
    return Proof(*row)


async def balance(*, tenant_id: int) -> dict[str, int]:
    """The balance of a tenant per currency, in minor units: roll-ups (which the proof compares with the lines) less refunds
    and disputes."""
    return dict(await database.fetch(SQL["balance"], {"tenant": tenant_id}))


prove_sync = sync_twin(prove)
balance_sync = sync_twin(balance)
