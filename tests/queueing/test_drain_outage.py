"""Drains while PostgreSQL is read-only: no outcome is lost, and no worker is declared dead."""

import asyncio
import math
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from payments.inbound import decisions as inbound
from payments.inbound.handlers import HANDLERS, Effect, ProcessorEvent
from payments.models import InboundEvent
from payments.processors.sandbox import SandboxProcessor
from payments.refunds import refunds
from payments.settle.work import PaymentWork
from queueing.models import Worker
from queueing.work import drain
from registry.data import database, db_breaker
from registry.models import Tenant
from tests.bed.receiver import Receiver
from tests.bed.wire import response
from tests.conftest import at_work, eventually
from tests.factories import in_thread, make_payment, make_processor
from tests.payments.inbound import account_of, deliver, event
from tests.payments.refunding import booked, given_back, hearing, paying_back, until_all
from tests.queueing.hooks import delivering, endpoint, tries, until
from tests.servers import Switch, cut_all, read_only


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes, tries and heartbeats come four to five times as often as in the product."""
    monkeypatch.setattr(db_breaker, "PROBE_EVERY", 0.05)
    monkeypatch.setattr(drain, "RETRY", 0.1)
    monkeypatch.setattr(drain, "POLL", 0.05)
    monkeypatch.setattr(drain, "HEARTBEAT", 0.2)
    monkeypatch.setattr(drain, "LATE", 0.4)
    monkeypatch.setattr(drain, "SILENT_AFTER", timedelta(seconds=1))


class Gate:
    """A send that begins before the database turns read-only and ends before it accepts writes again."""

    def __init__(self) -> None:
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.times = 0

    async def pass_through(self) -> None:
        self.times += 1
        self.begun.set()
        await self.may_end.wait()

    async def while_read_only(self, switch: Switch) -> None:
        await in_thread(cut_all)
        self.may_end.set()
        await eventually(lambda: db_breaker.current().read_only)
        await asyncio.sleep(3 * db_breaker.PROBE_EVERY)
        await switch.off()


@pytest.fixture
def gate() -> Gate:
    return Gate()


async def test_a_refund_that_was_returned_is_stored_and_neither_looked_up_nor_returned_again(
    tenant: Tenant, gate: Gate, monkeypatch: pytest.MonkeyPatch
):
    await in_thread(make_processor, tenant, "sandbox")
    [payment] = await booked(tenant)
    real = SandboxProcessor.refund
    looks: list[Any] = []

    async def refund(self: Any, *args: Any) -> Any:
        found = await real(self, *args)
        await gate.pass_through()
        return found

    monkeypatch.setattr(SandboxProcessor, "refund", refund)
    monkeypatch.setattr(SandboxProcessor, "look_up_refund", lambda *args: looks.append(args))
    await refunds.refund(tenant_id=tenant.pk, correlation_id=payment, amount=300)
    async with paying_back():
        await gate.begun.wait()
        async with read_only() as switch:
            await gate.while_read_only(switch)
            [refunded] = await until_all(payment, "returned")

    assert (refunded.attempt, gate.times, looks) == (1, 1, [])
    assert await given_back(payment) == [300]


async def test_a_webhook_that_was_delivered_is_not_sent_again(tenant: Tenant, gate: Gate):
    async with Receiver() as receiver:
        hook = await endpoint(tenant, receiver.url)

        async def slowly(_: Any) -> Any:
            await gate.pass_through()
            return response(200)

        receiver.answers_by(slowly)
        await in_thread(make_payment, tenant)
        async with delivering():
            await gate.begun.wait()
            async with read_only() as switch:
                await gate.while_read_only(switch)
                [delivery] = await until(hook, "delivered")

    assert (gate.times, delivery.attempt, len(await tries(delivery))) == (1, 1, 1)


@pytest.fixture
def work(gate: Gate) -> Iterator[list[int]]:
    """The transaction numbers of a handler's writes."""
    written: list[int] = []

    async def handle(event: ProcessorEvent, _: Any) -> Effect:
        await gate.pass_through()

        async def write(conn: Any) -> None:
            written.extend(n for (n,) in await database.rows(conn, "SELECT txid_current()"))

        return Effect("looked at", None, write)

    HANDLERS["thing."] = handle
    yield written
    del HANDLERS["thing."]


async def test_an_event_whose_work_cannot_be_written_is_tried_again_and_no_dead_letter(
    server: str, tenant: Tenant, gate: Gate, work: list[int], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inbound, "MAX_TRIES", 1)
    await deliver(server, await account_of(tenant), event("thing.changed"))
    async with hearing():
        await gate.begun.wait()
        async with read_only() as switch:
            await gate.while_read_only(switch)

            async def done() -> bool:
                async with database.own_connection():
                    return await InboundEvent.async_objects.filter(tenant=tenant, status="done").aexists()

            await eventually(done)

    assert work


async def test_a_drain_that_starts_while_the_database_is_read_only_can_be_stopped(tenant: Tenant):
    async with read_only():
        mine = drain.Drain(PaymentWork())
        running = asyncio.create_task(mine.run(seconds=60))
        await eventually(lambda: db_breaker.current().read_only)
        mine.stop()
        await asyncio.wait_for(running, drain.GRACE)
        await mine.work.close()

    assert not mine.worker_id


async def test_after_an_outage_no_worker_is_declared_dead_before_all_could_send_heartbeats(tenant: Tenant):
    async with at_work() as mine:
        await eventually(lambda: mine.worker_id)
        async with read_only() as switch:
            await in_thread(cut_all)
            await eventually(lambda: db_breaker.current().read_only)
            await asyncio.sleep(drain.HEARTBEAT + 0.1)  # a heartbeat of ours has failed by then
            other = await in_thread(silent_worker)
            await switch.off()
            off = timezone.now()

            def there(**fields: Any) -> Any:
                return in_thread(Worker.objects.filter(**fields).exists)

            await eventually(lambda: there(id=mine.worker_id, heartbeat_at__gt=off))
            spared = await there(id=other)
            await eventually(lambda: gone(other))

    assert spared


async def test_after_a_delayed_heartbeat_no_worker_is_declared_dead_before_all_could_send_heartbeats(
    tenant: Tenant,
):
    """Here for a lock; while a server is suspended all heartbeats wait."""
    silent = """INSERT INTO queueing_worker (queue, hostname, pid, heartbeat_at, in_flight, capacity, finished, failed)
        VALUES ('payments', 'elsewhere', 1, now() - interval '1 minute', 0, 0, 0, 0) RETURNING id"""
    async with at_work() as mine:
        await eventually(lambda: mine._beat_at < math.inf)
        async with database.transaction() as conn:
            await conn.execute("LOCK TABLE queueing_worker IN EXCLUSIVE MODE")
            await asyncio.sleep(drain.LATE + drain.HEARTBEAT)
            [(other,)] = await database.rows(conn, silent)
            heard = mine._beat_at
        await eventually(lambda: mine._beat_at > heard)
        await asyncio.sleep(drain.HEARTBEAT / 2)
        spared = not await gone(other)
        await eventually(lambda: gone(other))

    assert spared


def silent_worker() -> int:
    row = Worker.objects.create(queue="payments", hostname="elsewhere", pid=1)
    Worker.objects.filter(pk=row.pk).update(heartbeat_at=timezone.now() - timedelta(minutes=1))
    return row.pk


async def gone(worker: int) -> bool:
    return not await in_thread(Worker.objects.filter(id=worker).exists)
