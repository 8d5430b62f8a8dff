"""What a payment owes back, changed under its row's lock only: debts.py and disputes.py do it through here.

The payment is held first, its refunds and disputes after it, the stream last: always in this order.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import psycopg
from django.db import DEFAULT_DB_ALIAS
from django_async_backend.db import async_connections
from psycopg import AsyncConnection

from payments.books import events
from payments.models import LedgerEntry
from payments.states import SUCCEEDED
from registry.data import database, live
from registry.errors import Unavailable

SQL = database.statements(Path(__file__).parent / "sql" / "refunds.sql")


class Held(NamedTuple):
    """A payment whose row is locked, in the order of `hold`."""

    id: int
    status: str
    amount: int
    currency: str
    owed_back: int
    processor_id: int | None
    kind: str | None
    processor: str | None

    @property
    def left(self) -> int:
        """Minor units that may still be refunded."""
        return left_of(self.status, self.amount, self.owed_back)


def left_of(status: str, amount: int, owed_back: int) -> int:
    """Minor units of a payment that may still be refunded."""
    return max(amount - owed_back, 0) if status == SUCCEEDED else 0


async def locked[T](work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """`work` in one transaction; safe to repeat, because what was committed is found by its id."""

    async def once() -> T:
        async with database.transaction() as conn:
            return await work(conn)

    try:
        return await database.retrying(once)
    except psycopg.errors.UniqueViolation:  # the same key for another payment, at the same moment
        return await database.retrying(once)


def connection_of_transaction() -> AsyncConnection:
    """That of the `async_atomic` that is open: what is done on it and the caller's audit entry stand or fall together."""
    connection: AsyncConnection = async_connections[DEFAULT_DB_ALIAS].connection
    return connection


async def hold(conn: AsyncConnection, tenant_id: int, correlation_id: UUID) -> Held | None:
    """Lock the payment's row until the transaction ends."""
    found = await database.rows(conn, SQL["hold"], {"tenant": tenant_id, "correlation": correlation_id})
    return Held._make(found[0]) if found else None


async def move(
    conn: AsyncConnection,
    tenant_id: int,
    payment_id: int,
    *,
    subject: int,
    kind: str,
    detail: str,
    owed: int = 0,
    refunded: int = 0,
    back: int = 0,
    cause: str = LedgerEntry.Cause.REFUND,
) -> live.Event:
    """Under the payment's lock: change what it owes, write the ledger's lines for `back`, number the event."""
    [row] = await database.rows(
        conn,
        SQL["move"],
        {
            "tenant": tenant_id,
            "payment": payment_id,
            "subject": subject,
            "kind": kind,
            "detail": detail[:300],
            "owed": owed,
            "refunded": refunded,
            "back": back,
            "cause": str(cause),
        },
    )
    return events.from_row(row)


async def wake() -> None:
    try:
        await database.fetch(SQL["wake"])
    except Unavailable:
        pass  # it is durable; a worker's own look finds it
