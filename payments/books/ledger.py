"""The ledger's proof: its sums, and that every payment, refund and dispute has its lines. They are written where those change.

A booked payment is three lines that add up to zero: the processor holds the gross (debit), it keeps its fee (credit),
the rest is owed to the tenant (credit). What goes back is two lines, taken from what the processor holds and from what is
owed to the tenant; what comes back again (a refund that failed after all, a dispute that was won) is their reverse.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

from payments.models import LedgerProof
from registry import telemetry
from registry.data import database
from registry.data.chores import chore
from registry.data.loop import sync_twin

log = logging.getLogger(__name__)

SQL = database.statements(Path(__file__).parent / "sql" / "ledger.sql")
PROOFS = {name: SQL[name].format(verdict=SQL["verdict"]) for name in ("prove", "prove_since")}

PROVE_EVERY = 1800  # seconds between proofs of what is new; the whole ledger is proven once a day
WHOLE_EVERY = timedelta(days=1)
OVERLAP = timedelta(hours=2)  # longer than payments are asked about: what settles late was requested within it


@dataclass(frozen=True)
class Proof:
    """What was checked and what is wrong; all zeros but the first two is a sound ledger."""

    payments: int  # succeeded
    lines: int
    unbalanced: int  # payments, refunds, disputes whose lines do not add up to zero
    missing: int  # succeeded payments without exactly their three lines
    strange: int  # payments with lines that did not succeed, or have another amount, currency or processor
    rollups_off: int  # roll-up rows that differ from the payments they stand for
    refunds_off: int = 0  # refunds whose lines, or whose payment's sums, say something else
    disputes_off: int = 0  # disputes whose lines say something else

    @property
    def sound(self) -> bool:
        wrong = (self.unbalanced, self.missing, self.strange, self.rollups_off, self.refunds_off, self.disputes_off)
        return not any(wrong)


async def prove(*, tenant_id: int | None = None) -> Proof:
    """Check the whole ledger, or one tenant's, in one snapshot."""
    async with _snapshot() as conn:
        return await _proof(conn, "prove", tenant=tenant_id)


async def prove_next() -> Proof:
    """The scheduled proof: of what is new since the last sound one, and once a day of everything. Written down.

    Damage to what was proven before, and lines missing from a payment that was in doubt for longer than OVERLAP, wait for
    the day's whole proof. After an unsound one the same is looked at again.
    """
    sound = LedgerProof.async_objects.filter(sound=True)
    last, last_whole = await sound.afirst(), await sound.filter(whole=True).afirst()
    async with _snapshot() as conn:
        [(at, last_line)] = await (await conn.execute(SQL["standing"])).fetchall()
        whole = last is None or last_whole is None or at - last_whole.at >= WHOLE_EVERY
        if last is None or whole:
            proof = await _proof(conn, "prove", tenant=None)
        else:
            since = (last.at - OVERLAP).replace(minute=0, second=0, microsecond=0)  # as the roll-ups have it
            proof = await _proof(conn, "prove_since", since=since, after=last.last_line)
    await LedgerProof.async_objects.acreate(
        at=at, whole=whole, last_line=last_line, sound=proof.sound, found=asdict(proof)
    )
    return proof


@chore("prove-ledger", every=PROVE_EVERY)
async def prove_ledger() -> None:
    """The scheduled proof, counted and logged."""
    proof = await prove_next()
    telemetry.LEDGER_PROOFS.labels("sound" if proof.sound else "unsound").inc()
    if proof.sound:
        log.info("ledger proven", extra={"payments": proof.payments, "lines": proof.lines})
    else:
        log.error("ledger does not add up", extra={"proof": str(proof)})


@asynccontextmanager
async def _snapshot() -> AsyncIterator[AsyncConnection]:
    """A transaction that may read for as long as it takes, and locks nothing."""
    async with database.transaction() as conn:
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        await conn.execute("SET LOCAL statement_timeout = 0")
        yield conn


async def _proof(conn: AsyncConnection, statement: str, **params: Any) -> Proof:
    [row] = await (await conn.execute(PROOFS[statement], params)).fetchall()
    return Proof(*row)


async def balance(*, tenant_id: int) -> dict[str, int]:
    """What is owed to a tenant per currency, minor units: from the roll-ups, which the proof compares with the lines, less
    what was given or taken back."""
    return dict(await database.fetch(SQL["balance"], {"tenant": tenant_id}))


prove_sync = sync_twin(prove)
balance_sync = sync_twin(balance)
