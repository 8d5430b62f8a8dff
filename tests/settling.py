"""Helpers of tests of settling: accept payments without HTTP, seed a backlog by SQL, settle without a drain, shorten pauses, read
what is stored."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from types import ModuleType
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pytest

from payments.billing import subscriptions
from payments.inbound import receive
from payments.intake.intake import submit_many
from payments.intake.payment import NewPayment, Receipt
from payments.models import Processor
from payments.refunds import work as refund_work
from payments.routing import accounts, endpoint, polls, routing
from payments.settle import decisions, doubts
from payments.settle import work as settle_work
from payments.settle.work import PaymentWork
from payments.states import Status
from queueing.work import drain
from queueing.work.drain import run_until_idle
from queueing.work.work import Work
from registry.data import breaker, database
from registry.data.cache import Cached
from registry.models import Tenant
from registry.tenants import access
from tests.bed import processor
from tests.conftest import Api, eventually
from tests.factories import in_thread

# Pauses of payments, refunds and routing; time-outs are not among them, because a busy machine would exceed shorter ones.
PAUSES: dict[ModuleType, tuple[str, ...]] = {
    breaker: ("LONGEST_PAUSE",),
    decisions: ("FIRST_BACKOFF", "LONGEST_BACKOFF"),
    doubts: ("REPEAT_AFTER",),
    drain: ("POLL", "RETRY"),
    endpoint: ("REPORT_VALID_FOR",),
    polls: ("STEP",),
    processor: ("HEALTH_EVERY",),
    refund_work: ("NO_ROUTE",),
    routing: ("FRESH", "POLL_EVERY", "SYNC_EVERY", "SLOT_EVERY"),
    settle_work: ("ABANDON_EVERY", "NO_ROUTE"),
}

# Caches by which a process hears of changed settings.
CACHES: tuple[Cached[Any, Any], ...] = (
    access._keys,
    access._open,
    accounts._names,
    receive._accounts,
    subscriptions._shares,
)


def hasten_caches(patch: pytest.MonkeyPatch, by: float = 10) -> None:
    """Have changed settings take effect sooner, for tests of what happens afterwards."""
    for cache in CACHES:
        patch.setattr(cache, "fresh", cache.fresh / by)
        patch.setattr(cache, "stale", cache.stale / by)


def hasten(patch: pytest.MonkeyPatch, by: float = 10) -> None:
    """Divide all pauses, so that they keep their relation to one another. Processors that exist already keep theirs."""
    for module, names in PAUSES.items():
        for name in names:
            patch.setattr(module, name, getattr(module, name) / by)


class Row(NamedTuple):
    """A payment as it stands."""

    id: int
    correlation_id: UUID
    status: str
    processor: str | None
    requested_at: datetime | None
    attempt: int
    lease_id: int | None
    run_at: datetime
    code: str


class Try(NamedTuple):
    """An attempt as it was written down."""

    number: int
    processor: str
    reason: str
    requested_at: datetime
    started_at: datetime
    outcome: str
    code: str
    latency_ms: int | None


async def accept(
    tenant: Tenant, count: int = 1, *, amount: int = 1990, currency: str = "BRL", **fields: Any
) -> list[UUID]:
    """`count` payments of `tenant`, durable and due."""
    ids = [uuid4() for _ in range(count)]
    orders = [
        NewPayment(tenant_id=tenant.pk, correlation_id=one, amount=amount, currency=currency, **fields) for one in ids
    ]
    for receipt in await submit_many(orders):
        assert isinstance(receipt, Receipt), receipt
    return ids


async def seed(tenant: Tenant, count: int, *, due: str = "now()", wanted: str = "", priority: str = "0") -> None:
    """A backlog of queued payments, faster than the way in takes them; they have no events before they are sent."""
    await database.fetch(
        f"""INSERT INTO payments_payment (tenant_id, correlation_id, fingerprint, amount, currency, description, status,
            sequence, code, refunded, attempt, wanted_processor, priority, run_at, created_at, changed_at)
        SELECT %(tenant)s, gen_random_uuid(), '', 1990, 'BRL', '', 'queued', 1, '', 0, 0, %(wanted)s, {priority}, {due},
            now(), now()
        FROM generate_series(1, %(count)s) AS n""",
        {"tenant": tenant.pk, "count": count, "wanted": wanted},
    )


async def payments(tenant: Tenant) -> list[Row]:
    """All payments of `tenant`, oldest first."""
    found = await database.fetch(
        """SELECT p.id, p.correlation_id, p.status, r.name, p.requested_at, p.attempt, p.lease_id, p.run_at, p.code
        FROM payments_payment p LEFT JOIN payments_processor r ON r.id = p.processor_id
        WHERE p.tenant_id = %s ORDER BY p.id""",
        [tenant.pk],
    )
    return [Row(*row) for row in found]


async def payment(tenant: Tenant, correlation_id: UUID) -> Row:
    return next(row for row in await payments(tenant) if row.correlation_id == correlation_id)


async def tries(correlation_id: UUID | str) -> list[Try]:
    """The attempts of one payment, in order."""
    found = await database.fetch(
        """SELECT a.number, r.name, a.reason, a.requested_at, a.started_at, a.outcome, a.code, a.latency_ms
        FROM payments_attempt a
        JOIN payments_payment p ON p.tenant_id = a.tenant_id AND p.id = a.payment_id
        JOIN payments_processor r ON r.id = a.processor_id
        WHERE p.correlation_id = %s ORDER BY a.number""",
        [UUID(str(correlation_id))],
    )
    return [Try(*row) for row in found]


async def count(tenant: Tenant, *statuses: str) -> int:
    """How many payments of `tenant` are in one of `statuses`."""
    sql = "SELECT count(*) FROM payments_payment WHERE tenant_id = %s AND status = ANY(%s)"
    return (await database.fetch(sql, [tenant.pk, list(statuses)]))[0][0]


async def until(tenant: Tenant, status: Status | str, *, within: float = 10.0) -> list[Row]:
    """All payments of `tenant`, once each of them is in `status`."""

    async def reached() -> list[Row]:
        rows = await payments(tenant)
        return rows if all(row.status == status for row in rows) else []

    return await eventually(reached, within=within)


async def until_settled(tenant: Tenant, *, within: float = 10.0) -> list[Row]:
    return await until(tenant, Status.SUCCEEDED, within=within)


@asynccontextmanager
async def opened[W: Work](work: W) -> AsyncIterator[W]:
    """Work that is closed on leaving, for `settle_due`: a worker without a drain."""
    try:
        yield work
    finally:
        await work.close()


async def settle_due(work: Work | None = None) -> None:
    """Do all rows that are due, payments unless told otherwise. No drain: nothing is polled, listened for or waited for."""
    if work is None:
        async with opened(PaymentWork()) as work:
            await settle_due(work)
        return
    async with database.own_connection():
        await run_until_idle(work)


async def settle_until[T](tenant: Tenant, condition: Callable[[], Awaitable[T]]) -> T:
    """Do the payments of `tenant` until `condition` has a true value; the pauses between attempts are skipped."""
    async with opened(PaymentWork()) as job:

        async def reached() -> T:
            await settle_due(job)
            value = await condition()
            if not value:
                await skip_pauses(tenant)
            return value

        return await eventually(reached)


async def settle_all(tenant: Tenant, status: Status | str = Status.SUCCEEDED) -> list[Row]:
    """Do the payments of `tenant` until each is in `status`."""

    async def reached() -> list[Row]:
        rows = await payments(tenant)
        return rows if all(row.status == status for row in rows) else []

    return await settle_until(tenant, reached)


async def settle_one(api: Api, payment: dict[str, Any], status: Status | str = Status.SUCCEEDED) -> dict[str, Any]:
    """Do what is due, which brings this payment to `status`; its status object."""
    await settle_due()
    found = await api.status(payment["correlationId"])
    assert found["status"] == status, found
    return found


async def skip_pauses(tenant: Tenant) -> None:
    """Make due now what waits for its next attempt. What was scheduled for later, or given up, stays so."""
    await database.fetch(
        """UPDATE payments_payment SET run_at = now()
        WHERE tenant_id = %s AND closed IS NULL AND attempt > 0 AND run_at BETWEEN now() AND now() + interval '1 day'""",
        [tenant.pk],
    )


async def configure(tenant: Tenant, name: str, *, enabled: bool | None = None, **options: Any) -> None:
    """Change a processor as an operator does, at the next look of the workers."""

    def change() -> None:
        processor = Processor.objects.get(tenant=tenant, name=name)
        processor.options = {**processor.options, **options}
        if enabled is not None:
            processor.enabled = enabled
        processor.save()

    await in_thread(change)


async def together[T](*work: Callable[[], Awaitable[T]]) -> list[T]:
    """Start all at once and wait for all."""
    return list(await asyncio.gather(*(one() for one in work)))
