"""What a batch costs PostgreSQL: statements, commits and round trips have limits, and do not grow with the rows.

Left out are hints (NOTIFY) and the preparation of statements: how many there are depends on time and not on batches.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import psycopg
import pytest

from payments.inbound import receive
from payments.inbound.handlers import HANDLERS, Effect, ProcessorEvent
from payments.inbound.work import InboundWork
from payments.intake import intake
from payments.intake.payment import NewPayment, Receipt
from payments.models import Processor, Refund
from payments.processors import KINDS
from payments.processors.base import Account, Order, Outcome, RefundOrder, Result
from payments.processors.sandbox import SandboxProcessor
from payments.refunds.work import RefundWork
from payments.settle.work import PaymentWork
from payments.states import SUCCEEDED
from queueing.broker import ack, pop, push
from queueing.broker.ack_request import Ack
from queueing.broker.push_rows import NewMessage
from queueing.broker.sources import Target
from queueing.models import WebhookDelivery, WebhookEndpoint
from queueing.outbound import outcomes
from queueing.outbound.work import DeliveryWork
from registry.data import database
from registry.models import Tenant
from tests.costs import Cost, tapped
from tests.factories import in_thread, make_payment, make_processor

# What each batch cost before the work of all kinds was one class: statements, commits, round trips. They may only fall.
LIMITS = {
    "accept": Cost(1, 1, 1),
    "payments: claim": Cost(2, 1, 4),
    "payments: claim of nothing": Cost(1, 1, 3),
    "payments: settle": Cost(1, 1, 1),
    "refunds: claim": Cost(2, 1, 4),
    "refunds: claim of nothing": Cost(1, 1, 3),
    "refunds: settle": Cost(1, 1, 1),
    "deliveries: claim": Cost(1, 1, 1),
    "deliveries: claim of nothing": Cost(1, 1, 1),
    "deliveries: settle": Cost(1, 1, 1),
    "ordered deliveries: claim": Cost(1, 1, 1),
    "ordered deliveries: claim of nothing": Cost(1, 1, 1),
    "ordered deliveries: settle": Cost(2, 1, 4),
    "inbound events: receive": Cost(1, 1, 1),
    "inbound events: claim": Cost(2, 1, 4),
    "inbound events: claim of nothing": Cost(1, 1, 3),
    "inbound events: settle": Cost(1, 1, 1),
    "push": Cost(1, 1, 1),
    "pop": Cost(1, 1, 1),
    "ack": Cost(1, 1, 1),
}
# Of events whose handlers write something, at most so many share a commit. Each is two round trips beside its work and its row.
SHARED = 4
TRIES = 6  # batches of which the cheapest counts: what runs beside, and a machine that is busy, can only add
WORKER = 1  # whose leases these are

type Costs = dict[str, Cost]
type Work = Callable[[Tenant, int], Awaitable[Costs]]


# -- The work that is measured ------------------------------------------------------------------------------------


class Instant(SandboxProcessor):
    """A processor that books at once and asks no database."""

    kind = "instant"

    async def send(self, order: Order, account: Account) -> Outcome:
        return Outcome(Result.BOOKED, code="http_200")

    async def refund(self, order: RefundOrder, account: Account) -> Outcome:
        return Outcome(Result.BOOKED, code="http_200", reference=str(order.refund_id))


async def claim(work: Any, rows: int) -> list[Any]:
    return list(await work.claim(WORKER, rows))


async def handle(work: Any, claimed: Sequence[Any]) -> None:
    assert await asyncio.gather(*(work.run([one]) for one in claimed)) == [[True]] * len(claimed)


async def worked(work: Any, rows: int, name: str) -> Costs:
    """The second claim of twice `rows` that are due, when it is known where they go; their settling; a claim of nothing."""
    try:
        first = await claim(work, rows)
        await handle(work, first)
        with tapped() as claiming:
            second = await claim(work, rows)
        with tapped() as settling:
            await handle(work, second)
        third = await claim(work, rows)
        with tapped() as looking:
            fourth = await claim(work, rows)
    finally:
        await work.close()
    assert [len(first), len(second), len(third), len(fourth)] == [rows, rows, 0, 0]
    return {
        f"{name}: claim": claiming.cost,
        f"{name}: claim of nothing": looking.cost,
        f"{name}: settle": settling.cost,
    }


async def accepting(tenant: Tenant, rows: int) -> Costs:
    await _accept(tenant, 1)
    with tapped() as tap:
        await _accept(tenant, rows)
    return {"accept": tap.cost}


async def _accept(tenant: Tenant, rows: int) -> None:
    orders = [NewPayment(tenant_id=tenant.pk, correlation_id=uuid4(), amount=1990, currency="BRL") for _ in range(rows)]
    for receipt in await intake.submit_many(orders):
        assert isinstance(receipt, Receipt)


async def paying(tenant: Tenant, rows: int) -> Costs:
    await _accept(tenant, 2 * rows)
    return await worked(PaymentWork(), rows, "payments")


async def refunding(tenant: Tenant, rows: int) -> Costs:
    def owe() -> None:
        processor = Processor.objects.get(tenant=tenant)
        payment = make_payment(tenant, status=SUCCEEDED, processor=processor, owed_back=2 * rows)
        shared = {"tenant": tenant, "payment": payment, "processor": processor, "fingerprint": bytes(16)}
        Refund.objects.bulk_create(
            Refund(**shared, public_id=uuid4(), number=n, amount=1, currency="BRL") for n in range(2 * rows)
        )

    await in_thread(owe)
    return await worked(RefundWork(), rows, "refunds")


async def delivering(tenant: Tenant, rows: int, *, ordered: bool = False) -> Costs:
    def owe() -> None:
        hooks = WebhookEndpoint.objects.bulk_create(
            WebhookEndpoint(
                tenant=tenant,
                uuid=uuid4(),
                url="http://127.0.0.1",
                ordered=ordered,
                positions={"payments": 0},
                secrets=b"",
            )
            for _ in range(rows)  # an endpoint that is not known yet has few deliveries in flight
        )
        shared = {"tenant": tenant, "type": "payment.succeeded", "body": "{}", "ordered": ordered}
        WebhookDelivery.objects.bulk_create(
            WebhookDelivery(**shared, endpoint_id=hook.pk, message_id=uuid4().hex, subject=uuid4())
            for hook in 2 * hooks
        )

    await in_thread(owe)
    work = DeliveryWork()

    async def arrives(claim: outcomes.DeliveryClaim) -> outcomes.DeliverySettlement:
        return outcomes.settlement_of(claim, datetime.now(UTC), "", None, "", 1)

    work._attempt = arrives  # type: ignore[method-assign]  # answers that come one after the other are several batches
    return await worked(work, rows, "ordered deliveries" if ordered else "deliveries")


async def delivering_in_order(tenant: Tenant, rows: int) -> Costs:
    return await delivering(tenant, rows, ordered=True)


async def receiving(tenant: Tenant, rows: int) -> Costs:
    processor = await in_thread(Processor.objects.get, tenant=tenant)
    await _receive(tenant, processor, 1)
    with tapped() as tap:
        await _receive(tenant, processor, rows)
    return {"inbound events: receive": tap.cost}


async def _receive(tenant: Tenant, processor: Processor, rows: int) -> None:
    event = {"type": "thing.changed", "created": 1_790_000_000}
    bodies = [msgspec.json.encode({"id": f"evt_{uuid4().hex}", **event}) for _ in range(rows)]
    arrivals = (
        receive.ReceivedEvent(tenant.pk, processor.pk, receive.read_head(body), body, "{}", "delivery")
        for body in bodies
    )
    assert all(await asyncio.gather(*map(receive.receive, arrivals)))


async def handling(tenant: Tenant, rows: int) -> Costs:
    processor = await in_thread(Processor.objects.get, tenant=tenant)
    await _receive(tenant, processor, 2 * rows)
    return await worked(InboundWork(), rows, "inbound events")


async def handling_with_work(tenant: Tenant, rows: int) -> Costs:
    """Events whose handlers write something, in the transaction that marks the events as done."""

    async def write(conn: psycopg.AsyncConnection) -> None:
        await conn.execute("SELECT 1")

    async def handler(event: ProcessorEvent, _: Any) -> Effect:
        return Effect("looked at", write=write)

    HANDLERS["thing."] = handler
    try:
        return await handling(tenant, rows)
    finally:
        del HANDLERS["thing."]


async def queueing(tenant: Tenant, rows: int) -> Costs:
    await _queue_cycle(tenant, "warm", rows)
    return await _queue_cycle(tenant, "warm", rows)


async def _queue_cycle(tenant: Tenant, queue: str, rows: int) -> Costs:
    with tapped() as pushing:
        pushed = await push.push(tenant.pk, "a test", [NewMessage(queue, b"1") for _ in range(rows)])
    with tapped() as popping:
        popped = await pop.pop(tenant.pk, Target(queue=queue), size=rows)
    with tapped() as acking:
        acked = await ack.ack(
            tenant.pk, [Ack(m.transaction_id, m.partition_id, lease_id=m.lease_id) for m in popped.messages]
        )
    assert {one.status for one in pushed} == {"queued"}
    assert [one.success for one in acked] == [True] * rows
    return {"push": pushing.cost, "pop": popping.cost, "ack": acking.cost}


WORK: list[Work] = [
    accepting, paying, refunding, delivering, delivering_in_order, receiving, handling, queueing,
]  # fmt: skip


# -- The limits ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def tenant(tenant: Tenant) -> AsyncIterator[Tenant]:
    """One whose only processor books at once."""
    KINDS[Instant.kind] = Instant
    await in_thread(make_processor, tenant, kind=Instant.kind)
    yield tenant
    del KINDS[Instant.kind]


async def cheapest(work: Work, tenant: Tenant, rows: int, limits: Costs = LIMITS) -> Costs:
    """What the cheapest of up to TRIES batches cost; one that keeps to the limits will do."""
    best: Costs = {}
    for _ in range(TRIES):
        for name, cost in (await work(tenant, rows)).items():
            best[name] = min(best.get(name, cost), cost)
        if not over(best, limits):
            break
    return best


def over(costs: Costs, limits: Costs = LIMITS) -> Costs:
    """Those above their limits."""
    return {name: cost for name, cost in costs.items() if any(a > b for a, b in zip(cost, limits[name], strict=True))}


@pytest.mark.parametrize("rows", [1, 50])
@pytest.mark.parametrize("work", WORK)
async def test_a_batch_costs_no_more_than_its_limit_for_any_number_of_rows(work, rows, tenant):
    costs = await cheapest(work, tenant, rows)

    assert over(costs) == {}
    assert all(cost.statements and cost.commits for cost in costs.values())  # else something was not counted


@pytest.mark.parametrize("rows", [1, SHARED])
async def test_events_whose_handlers_write_share_a_commit(rows, tenant):
    limits = LIMITS | {"inbound events: settle": Cost(1 + 2 * rows, 1, 3 + 4 * rows)}

    assert over(await cheapest(handling_with_work, tenant, rows, limits), limits) == {}


# -- The counter --------------------------------------------------------------------------------------------------


async def test_statements_of_a_transaction_are_counted_and_its_beginning_and_end_are_round_trips():
    with tapped() as tap:
        async with database.transaction() as conn:
            await database.rows(conn, "SELECT 1")
            async with conn.transaction():
                await database.rows(conn, "SELECT 2")

    assert tap.cost == Cost(statements=2, commits=1, round_trips=6)


async def test_statements_sent_together_are_one_round_trip():
    with tapped() as tap:
        async with database.connection() as conn:
            async with conn.pipeline():
                await conn.execute("BEGIN")
                await conn.execute("SELECT 1")
            async with conn.pipeline():
                await conn.execute("SELECT 2")
                await conn.execute("COMMIT")

    assert tap.cost == Cost(statements=2, commits=1, round_trips=2)


async def test_a_single_statement_is_a_commit_and_a_hint_is_not_counted():
    with tapped() as tap:
        for _ in range(3):  # the first prepares it
            await database.fetch("SELECT 1")
        await database.fetch("NOTIFY nobody")

    assert tap.cost == Cost(statements=3, commits=3, round_trips=3)
