"""The ledger's proof: its sums, and that every succeeded payment has its lines. Lines are written by dispatch's settle.

A booked payment is three lines that add up to zero: the processor holds the gross (debit), it keeps its fee (credit),
the rest is owed to the tenant (credit).
"""

from dataclasses import dataclass
from pathlib import Path

from registry import database
from registry.sync import sync_twin

SQL = database.statements(Path(__file__).parent / "sql" / "ledger.sql")


@dataclass(frozen=True)
class Proof:
    """What was checked and what is wrong; all zeros but the first two is a sound ledger."""

    payments: int  # succeeded
    lines: int
    unbalanced: int  # payments whose lines do not add up to zero
    missing: int  # succeeded payments without exactly their three lines
    strange: int  # payments with lines that did not succeed, or have another amount, currency or processor
    rollups_off: int  # roll-up rows that differ from the payments they stand for

    @property
    def sound(self) -> bool:
        return not (self.unbalanced or self.missing or self.strange or self.rollups_off)


async def prove(*, tenant_id: int | None = None) -> Proof:
    """Check the whole ledger, or one tenant's, in one snapshot."""
    async with database.transaction() as conn:
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        await conn.execute("SET LOCAL statement_timeout = 0")  # it reads everything; it locks nothing
        [row] = await (await conn.execute(SQL["prove"], {"tenant": tenant_id})).fetchall()
    return Proof(*row)


async def balance(*, tenant_id: int) -> dict[str, int]:
    """What is owed to a tenant per currency, minor units: from the roll-ups, which the proof compares with the lines."""
    return dict(await database.fetch(SQL["balance"], {"tenant": tenant_id}))


prove_sync = sync_twin(prove)
balance_sync = sync_twin(balance)
