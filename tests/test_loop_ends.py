"""Every entry point that runs an event loop closes everything that the loop opened, and writes pending records."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection
from limits import parse

from payments.books import events
from payments.intake import intake
from payments.intake.payment import NewPayment
from payments.refunds import inline as refunds_inline
from payments.refunds import refunds
from payments.settle.work import PaymentWork
from queueing.broker import pop, push, push_rows
from queueing.broker.sources import Target
from queueing.work import entry
from registry.data import chores, live, loop, rates
from registry.data.loop import sync_twin
from registry.management.base import AsyncCommand
from registry.models import Tenant
from registry.tenants import access
from tests.factories import make_processor
from tests.payments.refunding import booked, given_back, refunds_of
from tests.settling import configure

GONE_WITHIN = 5.0  # seconds for PostgreSQL to notice that a client went

type Work = Callable[[], Awaitable[None]]
type Entry = Callable[[Work, pytest.MonkeyPatch], None]


def by_lifespan(work: Work, _: pytest.MonkeyPatch) -> None:
    """A web process: uvicorn's two messages, and `work` between them."""
    from registry import asgi  # it asks for the service's name

    async def serve() -> None:
        messages = iter(["lifespan.startup", "lifespan.shutdown"])

        async def receive() -> dict[str, str]:
            message = next(messages)
            if message == "lifespan.shutdown":
                await work()
            return {"type": message}

        async def send(_: dict[str, str]) -> None: ...

        await asgi.application({"type": "lifespan"}, receive, send)

    asyncio.run(serve())


def by_command(work: Work, _: pytest.MonkeyPatch) -> None:
    class Command(AsyncCommand):
        async def run(self, **_: object) -> None:
            await work()

    call_command(Command())


def by_drain(work: Work, patch: pytest.MonkeyPatch) -> None:
    """An RQ job: `work` stands for what a drain's own tasks do."""

    class Working(PaymentWork):
        def background(self) -> list[Callable[[], Awaitable[None]]]:
            async def once() -> None:
                await work()
                os.kill(os.getpid(), signal.SIGTERM)  # as RQ's worker tells it to end
                await asyncio.Event().wait()

            return [once]

    patch.setitem(entry.DRAINS, "payments", Working)
    entry.drain("payments")


def by_chore(work: Work, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(chores.CHORES, "work", chores.Chore(3600, work))
    entry.chore("work")


def by_housekeeping(work: Work, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(chores, "CHORES", {"work": chores.Chore(3600, work)})
    patch.setattr(entry, "DRAIN_SECONDS", 0.1)
    patch.setattr(entry, "PARENT_CHECK", 0.01)
    entry.housekeep()


def by_sync_twin(work: Work, _: pytest.MonkeyPatch) -> None:
    sync_twin(work)()


@pytest.mark.parametrize(
    "enter",
    [by_lifespan, by_command, by_drain, by_chore, by_housekeeping, by_sync_twin],
    ids=lambda enter: enter.__name__,
)
def test_every_entry_point_closes_all_resources_of_its_loop_and_writes_pending_records(
    enter: Entry, tenant: Tenant, key: str, monkeypatch: pytest.MonkeyPatch
):
    before = connections()
    loops: list[asyncio.AbstractEventLoop] = []

    async def work() -> None:
        await use_everything(tenant.pk, key)
        assert len(loop.still_open()) > 10
        loops.append(asyncio.get_running_loop())

    enter(work, monkeypatch)

    assert left_open(loops[0]) == []
    assert pushed(tenant.pk) == 1
    assert none_is_left(beside=before)


async def use_everything(tenant_id: int, key: str) -> None:
    """A moment of a busy process: what it does opens most of what belongs to a loop."""
    await access.authenticate(f"Bearer {key}")
    await rates.count(parse("9/minute"), str(tenant_id))
    await push.push(tenant_id, "", [push_rows.NewMessage("q", b"1")])
    await pop.pop(tenant_id, Target(queue="q", group="g"))
    await intake.submit(NewPayment(tenant_id=tenant_id, correlation_id=uuid4(), amount=1990, currency="BRL"))
    live.publish([live.Event("payments", tenant_id, 1, "subject", 1, b"{}")])
    async with events.STREAM.follow(tenant_id):
        pass


def left_open(ended: asyncio.AbstractEventLoop) -> list[loop.PerLoop]:
    return [one for one in loop._declared if ended in one._resources]


def pushed(tenant_id: int) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(sum(pushed), 0) FROM queueing_traffic WHERE tenant_id = %s", [tenant_id])
        return cursor.fetchone()[0]


def connections() -> set[int]:
    """PostgreSQL's sessions in this database."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
        )
        return {pid for (pid,) in cursor.fetchall()}


def none_is_left(*, beside: set[int]) -> bool:
    deadline = time.monotonic() + GONE_WITHIN
    while (left := connections() - beside) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not left


def test_a_web_process_that_ends_gives_back_the_refund_that_it_has_leased(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("queueing.work.drain.GRACE", 0.1)
    make_processor(tenant, "sandbox", fee="0.05")
    [payment] = sync_twin(booked)(tenant)
    receipt = refunds.refund_sync(tenant_id=tenant.pk, correlation_id=payment)
    sync_twin(configure)(tenant, "sandbox", refundHang=True)

    loops: list[asyncio.AbstractEventLoop] = []

    async def work() -> None:
        loops.append(asyncio.get_running_loop())
        refunds_inline.send(tenant.pk, receipt.refund_id)
        while not await given_back(payment):  # it is at the processor, which does not answer
            await asyncio.sleep(0.01)

    by_lifespan(work, monkeypatch)

    [left] = sync_twin(refunds_of)(payment)
    assert (left.status, left.code) == ("uncertain", "worker_left")
    assert left_open(loops[0]) == []
