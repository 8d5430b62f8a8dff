"""Group commit: concurrent callers share a statement; an error fails only the item that caused it."""

import asyncio
from collections.abc import Sequence
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payments.intake import intake
from payments.intake.payment import NewPayment
from registry.data import batching, database
from registry.data.batching import Batcher, Family
from registry.errors import Unavailable
from tests.conftest import eventually
from tests.depth import deep


class Notebook:
    """Writes batches down; waits for the gate before each, refuses what is in `bad`."""

    def __init__(self, *, bad: Sequence[int] = (), away: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.bad, self.away = set(bad), away
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_once = self.most_at_once = 0

    async def write(self, items: Sequence[int]) -> list[str]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.batches.append(list(items))
            await self.gate.wait()
            if self.away:
                raise Unavailable("away")
            if self.bad & set(items):
                raise ValueError("a bad row")
            return [f"{item} written" for item in items]
        finally:
            self.at_once -= 1


async def test_concurrent_submissions_share_one_statement():
    book = Notebook()
    batcher = Batcher(book.write)

    results = await asyncio.gather(*(batcher.submit(n) for n in range(100)))

    assert results == [f"{n} written" for n in range(100)]
    assert book.batches == [list(range(100))]


async def test_submissions_during_a_commit_share_the_next_batch():
    book = Notebook()
    book.gate.clear()
    batcher = Batcher(book.write, in_flight=1)
    first = batcher.submit(0)
    await eventually(lambda: book.batches)
    others = [batcher.submit(n) for n in range(1, 50)]

    book.gate.set()
    await asyncio.gather(first, *others)

    assert book.batches == [[0], list(range(1, 50))]


async def test_rows_that_wait_begin_another_statement_however_few_requests_they_are():
    book = Notebook()
    book.gate.clear()
    batcher = Batcher(book.write, weigh=lambda rows: rows)
    futures = [batcher.submit(1)]
    await eventually(lambda: book.batches == [[1]])

    futures.append(batcher.submit(batching.WORTH_ANOTHER - 1))
    await asyncio.sleep(0)
    few = list(book.batches)
    futures.append(batcher.submit(1))
    await eventually(lambda: len(book.batches) == 2)
    book.gate.set()
    await asyncio.gather(*futures)

    assert few == [[1]]
    assert book.batches == [[1], [batching.WORTH_ANOTHER - 1, 1]]


async def test_rows_per_batch_and_batches_in_flight_are_limited():
    book = Notebook()
    book.gate.clear()
    batcher = Batcher(book.write, max_rows=10, in_flight=2)
    futures = [batcher.submit(n) for n in range(95)]
    await eventually(lambda: len(book.batches) == 2)

    book.gate.set()
    await asyncio.gather(*futures)

    assert max(map(len, book.batches)) == 10
    assert [n for batch in book.batches for n in batch] == list(range(95))
    assert book.most_at_once == 2


async def test_only_the_bad_row_of_a_batch_fails():
    book = Notebook(bad=[7])
    batcher = Batcher(book.write)

    results = await asyncio.gather(*(batcher.submit(n) for n in range(20)), return_exceptions=True)

    assert [n for n, result in enumerate(results) if isinstance(result, ValueError)] == [7]
    assert [result for n, result in enumerate(results) if n != 7] == [f"{n} written" for n in range(20) if n != 7]


async def test_an_unavailable_database_fails_the_batch_at_once_without_trying_single_rows():
    book = Notebook(away=True)
    batcher = Batcher(book.write)

    results = await asyncio.gather(*(batcher.submit(n) for n in range(20)), return_exceptions=True)

    assert all(isinstance(result, Unavailable) for result in results)
    assert len(book.batches) == 1


async def test_after_a_failure_the_next_batch_is_written():
    book = Notebook(away=True)
    batcher = Batcher(book.write)
    with pytest.raises(Unavailable):
        await batcher.submit(1)
    book.away = False

    assert await batcher.submit(2) == "2 written"


async def test_a_submission_made_as_the_last_writer_ends_is_written():
    batcher = Batcher(Notebook().write, in_flight=1)

    async with asyncio.timeout(5):
        results = [await batcher.submit(n) for n in range(3)]  # each as the one before has just been told

    assert results == ["0 written", "1 written", "2 written"]


async def test_rows_of_cancelled_callers_are_written():
    book = Notebook()
    book.gate.clear()
    batcher = Batcher(book.write)
    futures = [batcher.submit(n) for n in range(10)]
    await eventually(lambda: book.batches)
    for future in futures[::2]:
        future.cancel()

    book.gate.set()
    results = await asyncio.gather(*futures, return_exceptions=True)

    assert book.batches == [list(range(10))]
    assert results[1::2] == [f"{n} written" for n in range(1, 10, 2)]
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert await batcher.submit(99) == "99 written"


@settings(max_examples=deep(15, 400), deadline=None)
@given(
    steps=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    bad=st.sets(st.integers(0, 120), max_size=5),
    rows=st.integers(1, 30),
    in_flight=st.integers(1, 3),
)
async def test_each_caller_gets_its_own_result_in_any_order(steps, bad, rows, in_flight):
    book = Notebook(bad=bad)
    batcher = Batcher(book.write, max_rows=rows, in_flight=in_flight)
    futures = []
    for count in steps:
        futures += [batcher.submit(len(futures) + n) for n in range(count)]
        await asyncio.sleep(0)

    async with asyncio.timeout(10):
        results = await asyncio.gather(*futures, return_exceptions=True)

    for n, result in enumerate(results):
        assert isinstance(result, ValueError) if n in bad else result == f"{n} written"


# -- A batcher for each tenant -------------------------------------------------------------------------------------


async def test_a_waiting_batcher_of_one_tenant_delays_no_other():
    book, other = Notebook(), Notebook()
    book.gate.clear()
    books = iter([book, other])
    family: Family[int, str] = Family(lambda: Batcher(next(books).write))
    stuck = family.of(1).submit(1)
    await eventually(lambda: book.batches)

    async with asyncio.timeout(5):
        assert await family.of(2).submit(2) == "2 written"

    again = family.of(1).submit(3)
    book.gate.set()
    assert await asyncio.gather(stuck, again) == ["1 written", "3 written"]
    assert (book.batches, other.batches) == ([[1], [3]], [[2]])


async def test_idle_batchers_beyond_the_limit_are_dropped(monkeypatch):
    monkeypatch.setattr(batching, "KEPT", 3)
    book = Notebook()
    book.gate.clear()
    family: Family[int, str] = Family(lambda: Batcher(book.write))
    at_work = family.of(1)
    future = at_work.submit(1)
    idle = [family.of(2), family.of(3)]
    kept = [family.of(2), family.of(3)]

    family.of(4)

    assert kept == idle
    assert family.of(1) is at_work
    assert family.of(2) is not idle[0]
    book.gate.set()
    assert await future == "1 written"


# -- In front of PostgreSQL ----------------------------------------------------------------------------------------


def order(tenant_id: int, n: int, **fields: object) -> NewPayment:
    return NewPayment(
        **{"tenant_id": tenant_id, "correlation_id": uuid4(), "amount": n + 1, "currency": "BRL", **fields}
    )


async def test_two_hundred_concurrent_payments_are_committed_together(tenant):
    await asyncio.gather(*(intake.submit(order(tenant.pk, n)) for n in range(200)))

    commits = await database.fetch(
        "SELECT count(DISTINCT xmin::text) FROM payments_payment WHERE tenant_id = %s", [tenant.pk]
    )

    assert commits[0][0] <= 3


async def test_only_a_row_that_postgresql_refuses_fails(tenant):
    good = [order(tenant.pk, n) for n in range(10)]
    bad = order(tenant.pk, 0, description="NUL \0 cannot be stored")

    results = await asyncio.gather(*map(intake.submit, [*good[:5], bad, *good[5:]]), return_exceptions=True)

    assert [isinstance(result, Exception) for result in results] == [False] * 5 + [True] + [False] * 5
    stored = await database.fetch("SELECT count(*) FROM payments_payment WHERE tenant_id = %s", [tenant.pk])
    assert stored[0][0] == 10


async def test_no_caller_waits_for_ever_when_the_writer_is_cancelled():
    book = Notebook()
    book.gate.clear()
    batcher = Batcher(book.write)
    future = batcher.submit(0)
    await eventually(lambda: book.batches)

    ending = asyncio.create_task(batcher.finish())
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)

    assert future.cancelled()
