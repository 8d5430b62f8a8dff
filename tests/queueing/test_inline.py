"""Inline work of any kind: every request is answered, and the end of a loop stops all of it at the same time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple
from uuid import uuid4

import pytest

from payments.settle.work import PAYMENTS
from queueing.work import drain, inline
from queueing.work.inline import Inline, Result
from queueing.work.keyed import Key, PublicId
from queueing.work.work import Routed, Work
from registry.data.database import Row
from registry.data.loop import end_loop
from tests.conftest import eventually


class Item(NamedTuple):
    key: Key


class Sending(Work[Item, Item]):
    """Work that claims whatever is requested, and sends until it is released. It writes nothing."""

    table = PAYMENTS

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[Key] = []
        self.written: list[Key] = []
        self.given_back: list[Key] = []
        self.sending, self.closing = asyncio.Event(), asyncio.Event()
        self.sending.set()
        self.closing.set()

    async def claim_by_id(self, worker_id: int, ids: Sequence[PublicId]) -> dict[PublicId, Item | None]:
        items = {id: Item((id[0], number)) for number, id in enumerate(ids)}
        self._add([], items.values())
        return dict(items)

    def route(self, rows: Sequence[Row]) -> Routed[Item]:
        return Routed([])

    async def send(self, items: Sequence[Item]) -> Sequence[Item]:
        self.sent += [item.key for item in items]
        await self.sending.wait()
        return items

    async def settle(self, outcomes: Sequence[Item]) -> list[Row]:
        self.written += [outcome.key for outcome in outcomes]
        return [outcome.key for outcome in outcomes]

    def changed(self, outcome: Item, row: Row) -> None:
        return None

    def is_done(self, outcome: Item, written: bool) -> bool:
        return written

    async def give_back(self, items: Sequence[Item]) -> None:
        self.given_back += [item.key for item in items]

    async def close(self) -> None:
        await self.closing.wait()
        await super().close()


type Open = Callable[[Work, str], Inline]


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Opens inline work as a web process does, at most one of each name."""

    def open(work: Work, name: str) -> Inline:
        return inline.per_loop(lambda: Inline(lambda: work, queue=PAYMENTS.queue, name=name, limit=10)).get()

    yield open
    await end_loop()


async def test_a_request_while_a_failed_drain_closes_is_answered(tenant, opened, monkeypatch):
    work = Sending()
    work.closing.clear()
    mine = opened(work, "inline.test")

    async def fails(self: drain.Drain) -> bool:
        raise ValueError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(drain.Drain, "_register", fails)
        assert await mine.submit(tenant.pk, uuid4()) is Result.QUEUED

    async with asyncio.timeout(2):
        assert await mine.submit(tenant.pk, uuid4()) is Result.SETTLED
    work.closing.set()


async def test_the_end_of_a_loop_waits_for_a_drain_that_was_replaced(tenant, opened):
    work = Sending()
    work.sending.clear()
    mine = opened(work, "inline.test")
    before = mine.submit(tenant.pk, uuid4())
    await eventually(lambda: work.sent)
    mine._current_drain().stop()  # as at the end of its time
    mine.submit(tenant.pk, uuid4())
    await eventually(lambda: len(work.sent) == 2)

    asyncio.get_running_loop().call_later(0.1, work.sending.set)
    await end_loop()

    assert (len(work.written), before.done()) == (2, True)


async def test_the_end_of_a_loop_gives_all_inline_work_its_grace_at_the_same_time(tenant, opened, monkeypatch):
    monkeypatch.setattr(drain, "GRACE", 0.5)
    works = [Sending(), Sending()]
    for number, work in enumerate(works):
        work.sending.clear()
        opened(work, f"inline.test{number}").submit(tenant.pk, uuid4())
    await eventually(lambda: all(work.sent for work in works))

    async with asyncio.timeout(0.95):
        await end_loop()

    assert [len(work.given_back) for work in works] == [1, 1]
