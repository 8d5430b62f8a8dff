"""Helpers for tests of refunds: booked payments, rows of refunds, bookings of the sandbox, a worker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import ModuleType
from typing import Any, NamedTuple
from uuid import UUID

from payments.inbound.work import InboundWork
from payments.processors.reports import DisputeReport, RefundReport
from payments.refunds.balance import in_transaction
from payments.refunds.work import RefundWork
from queueing.work.drain import Drain
from registry.data import database, live
from registry.models import Tenant
from tests.conftest import Api, eventually
from tests.settling import accept, opened, settle_all, settle_due


class RefundRow(NamedTuple):
    """A refund as it is in the database."""

    id: int
    public_id: UUID
    number: int
    amount: int
    status: str
    code: str
    attempt: int
    reference: str
    external: bool
    stopped: bool
    requested_at: Any


def paying_back(**options: Any) -> AbstractAsyncContextManager[Drain]:
    """A worker's drain of refunds in this loop, stopped gently on leaving."""
    return draining(RefundWork(), **options)


def hearing() -> AbstractAsyncContextManager[Drain]:
    """A worker's drain of processors' events."""
    return draining(InboundWork())


@asynccontextmanager
async def draining(work: Any, **options: Any) -> AsyncIterator[Drain]:
    drain = Drain(work, **options)
    task = asyncio.create_task(drain.run(seconds=600))
    try:
        yield drain
    finally:
        drain.stop()
        await task
        await work.close()


async def booked(tenant: Tenant, count: int = 1, *, amount: int = 1000) -> list[UUID]:
    """`count` payments that have succeeded."""
    ids = await accept(tenant, count, amount=amount)
    await settle_all(tenant)
    return ids


async def refunds_of(payment: UUID) -> list[RefundRow]:
    """The refunds of one payment, oldest first."""
    rows = await database.fetch(
        """SELECT r.id, r.public_id, r.number, r.amount, r.status, r.code, r.attempt, r.reference, r.external,
            r.stopped_at IS NOT NULL, r.requested_at
        FROM payments_refund r JOIN payments_payment p ON p.tenant_id = r.tenant_id AND p.id = r.payment_id
        WHERE p.correlation_id = %s ORDER BY r.number""",
        [payment],
    )
    return [RefundRow(*row) for row in rows]


async def until_all(payment: UUID, *statuses: str) -> list[RefundRow]:
    """The refunds of one payment, once each is in one of `statuses`."""

    async def reached() -> list[RefundRow]:
        found = await refunds_of(payment)
        return found if found and all(one.status in statuses for one in found) else []

    return await eventually(reached)


async def pay_back(payment: UUID, *statuses: str) -> list[RefundRow]:
    """Do the refunds of one payment until each is in one of `statuses`; the pauses between attempts are skipped."""
    async with opened(RefundWork()) as work:

        async def reached() -> list[RefundRow]:
            await settle_due(work)
            found = await refunds_of(payment)
            if found and all(one.status in statuses for one in found):
                return found
            await skip_refund_pauses(payment)
            return []

        return await eventually(reached)


async def skip_refund_pauses(payment: UUID) -> None:
    await database.fetch(
        """UPDATE payments_refund r SET run_at = now() FROM payments_payment p
        WHERE p.correlation_id = %s AND r.tenant_id = p.tenant_id AND r.payment_id = p.id
          AND r.closed IS NULL AND r.attempt > 0 AND r.run_at BETWEEN now() AND now() + interval '1 day'""",
        [payment],
    )


async def sums(payment: UUID) -> tuple[int, int]:
    """What the payment owes back, and what of it was returned."""
    sql = "SELECT owed_back, refunded FROM payments_payment WHERE correlation_id = %s"
    return (await database.fetch(sql, [payment]))[0]


async def given_back(payment: UUID) -> list[int]:
    """The sandbox's own books: amounts that it gave back."""
    sql = "SELECT amount FROM payments_sandboxrefund WHERE correlation_id = %s ORDER BY amount"
    return [amount for (amount,) in await database.fetch(sql, [payment])]


async def lines(payment: UUID, cause: str = "refund") -> list[tuple[str, int]]:
    """The ledger's lines of one cause, in order of account and amount."""
    return await database.fetch(
        """SELECT l.account, l.amount FROM payments_ledgerentry l
        JOIN payments_payment p ON p.tenant_id = l.tenant_id AND p.id = l.payment_id
        WHERE p.correlation_id = %s AND l.cause = %s ORDER BY l.account, l.amount""",
        [payment, cause],
    )


async def kinds(payment: UUID) -> list[str]:
    """What happened to the payment beside its status, in order."""
    rows = await database.fetch(
        """SELECT e.kind FROM payments_paymentevent e
        JOIN payments_payment p ON p.tenant_id = e.tenant_id AND p.id = e.payment_id
        WHERE p.correlation_id = %s AND e.kind <> '' ORDER BY e.sequence""",
        [payment],
    )
    return [kind for (kind,) in rows]


async def ask(api: Api, payment: UUID | str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any], Any]:
    """Status, body and headers of `POST /payments/{id}/refunds`."""
    async with api.post(f"/payments/{payment}/refunds", json={} if body is None else body, headers=headers) as response:
        return response.status, await response.json(content_type=None), response.headers


async def book(kind: ModuleType, tenant, processor, report: RefundReport | DisputeReport) -> bool:
    """Book a processor's report, as the handlers of its events do; whether that changed anything."""
    changes = await in_transaction(
        lambda conn: kind.book(conn, tenant_id=tenant.pk, processor_id=processor.pk, report=report)
    )
    live.publish(changes)
    return bool(changes)
