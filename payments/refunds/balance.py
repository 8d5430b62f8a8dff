"""The refundable balance of a payment. It is changed only under the payment's row lock.

Lock order: the payment, then its refunds and disputes, then the stream of events.
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
from payments.errors import NotRefundable, UnknownPayment
from payments.models import LedgerEntry
from payments.states import SUCCEEDED
from registry.data import database, live
from registry.errors import Unavailable

SQL = database.statements(Path(__file__).parent / "sql" / "refunds.sql")


class LockedPayment(NamedTuple):
    """A payment whose row is locked, in the order of `lock`."""

    id: int
    status: str
    amount: int
    currency: str
    owed_back: int
    processor_id: int | None
    kind: str | None
    processor: str | None

    @property
    def refundable(self) -> int:
        return refundable_amount(self.status, self.amount, self.owed_back)

    def must_be_booked_at(self, processor_id: int) -> None:
        """Raises NotRefundable: the payment's own outcome is settled before the processor's reports about it are booked."""
        if self.status != SUCCEEDED or self.processor_id != processor_id:
            raise NotRefundable(f"it is {self.status} here: its own outcome comes first")


def refundable_amount(status: str, amount: int, owed_back: int) -> int:
    """Minor units of a payment that can still be refunded."""
    return max(amount - owed_back, 0) if status == SUCCEEDED else 0


async def in_transaction[T](work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """Run `work` in one transaction, and again if the connection is lost: what was committed is found by its id."""

    async def once() -> T:
        async with database.transaction() as conn:
            return await work(conn)

    try:
        return await database.retrying(once)
    except psycopg.errors.UniqueViolation:  # the same key was used for another payment at the same moment
        return await database.retrying(once)


def connection_of_transaction() -> AsyncConnection:
    """The connection of the open `async_atomic`: statements on it and the caller's audit entry are committed together."""
    connection: AsyncConnection = async_connections[DEFAULT_DB_ALIAS].connection
    return connection


async def lock(conn: AsyncConnection, tenant_id: int, correlation_id: UUID | None) -> LockedPayment:
    """Lock the payment's row until the transaction ends. Raises UnknownPayment."""
    rows = await database.rows(conn, SQL["lock"], {"tenant": tenant_id, "correlation": correlation_id})
    if not rows:
        raise UnknownPayment
    return LockedPayment._make(rows[0])


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
    """Change a locked payment's balance, write ledger entries for `back` minor units, and number the event."""
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
        pass  # the refund is durable; a worker's next poll finds it
