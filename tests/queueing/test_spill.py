"""The spill with either engine: durable, in order, once; bad records quarantined; records of dead processes taken over."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from redis.asyncio import Redis

from queueing import spill
from queueing.spill import queue as spill_queue
from queueing.spill.file import FileEngine
from queueing.spill.queue import CLOSE_LIMIT, HANDOVER, HANDOVER_LIMIT, SpillQueue
from queueing.spill.record import Engine, Full, Record
from queueing.spill.shared import SharedStreamEngine
from queueing.spill.stream import StreamEngine
from registry.data import identity
from registry.data.database import fetch
from registry.errors import Unavailable
from tests.conftest import eventually
from tests.factories import in_thread

PROJECT = Path(__file__).parents[2]
RAISE = "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{}'; END $$"
HOLD = 0.4  # seconds of silence after which a stream's owner is taken for dead


class Database:
    """What stands where PostgreSQL would: it can be away, refuse, break on a record, and knows what it has seen."""

    def __init__(self) -> None:
        self.away = False
        self.says = ""  # the SQLSTATE that a real server answers with
        self.stored: list[bytes] = []
        self.batches: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def store(self, records: list[Record]) -> list[spill.StoreResult]:
        await self.gate.wait()
        if self.away:
            raise Unavailable("away")
        if self.says:
            await fetch(RAISE.format(self.says), repeatable=False)
        if any(record.data.startswith(b"too large") for record in records):
            await fetch(RAISE.format("54000"), repeatable=False)
        if any(record.data.startswith(b"poison") for record in records):
            raise ValueError("invalid byte sequence")
        self.batches.append(len(records))
        self.stored += [record.data for record in records if not record.data.startswith(b"refused")]
        return [
            spill.StoreResult("409 other content") if record.data.startswith(b"refused") else spill.STORED
            for record in records
        ]


class Site:
    """One engine's kind of place, where queues are opened, die and are inherited."""

    def __init__(self, engine: str, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        self.kind = "k" + "".join(chr(97 + int(digit, 16)) for digit in uuid4().hex[:12])
        self.database = Database()
        self.queues: list[SpillQueue] = []

    def make(self, limit: int = 10**7) -> Engine:
        if self.engine == "file":
            engine: Any = FileEngine(self.folder, self.kind, limit=limit)
            engine.idle = engine.takeover_every = 0.05
            return engine
        return StreamEngine(settings.REDIS_URL, self.kind, limit=limit, lock_ttl=HOLD)

    def queue(self, seen: Callable[[list[Record]], None] | None = None, **options: Any) -> SpillQueue:
        queue = SpillQueue(self.kind, self.make(**options), self.database.store, seen)
        self.queues.append(queue)
        return queue

    async def close(self) -> None:
        for queue in self.queues:
            await queue.close(within=0)
        async with Redis.from_url(settings.REDIS_URL) as redis:
            if names := [name async for name in redis.scan_iter(f"{identity.prefix()}:spill:{self.kind}:*")]:
                await redis.delete(*names)

    async def is_empty(self) -> bool:
        if self.engine == "file":
            return not list(self.folder.glob(f"{self.kind}-*"))
        async with Redis.from_url(settings.REDIS_URL) as redis:
            return not [name async for name in redis.scan_iter(f"{identity.prefix()}:spill:{self.kind}:*")]


@pytest.fixture(autouse=True)
def quick_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is away is tried ten times as often as in the product."""
    monkeypatch.setattr(spill_queue, "RETRY", 0.02)


@pytest.fixture(params=["file", "stream"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(request.param, tmp_path)
    yield made
    await made.close()


async def append(queue: SpillQueue, *data: bytes) -> None:
    await asyncio.gather(*(queue.append(7, one, datetime.now(UTC)) for one in data))


def numbers(n: int, start: int = 0) -> list[bytes]:
    return [b"%06d" % number for number in range(start, start + n)]


# -- Stored, in order, once --------------------------------------------------------------------------------------


async def test_records_appended_during_an_outage_of_the_database_are_stored_in_order_afterwards(site: Site):
    site.database.away = True
    queue = site.queue()

    for start in range(0, 1200, 100):
        await append(queue, *numbers(100, start))
    during = (queue.waiting, list(site.database.stored))
    site.database.away = False

    await eventually(lambda: not queue.waiting)
    assert during == (1200, [])
    assert site.database.stored == numbers(1200)


async def test_concurrent_appends_share_one_fsync(site: Site, monkeypatch: pytest.MonkeyPatch):
    queue = site.queue()
    calls: list[int] = []
    real = queue.engine.append

    async def counted(records: Any) -> None:
        calls.append(len(records))
        await real(records)

    monkeypatch.setattr(queue.engine, "append", counted)

    await append(queue, *numbers(200))

    assert sum(calls) == 200
    assert len(calls) <= 2


async def test_tenant_time_and_bytes_of_a_record_are_stored_unchanged(site: Site):
    got: list[Record] = []

    async def store(records: list[Record]) -> list[spill.StoreResult]:
        got.extend(records)
        return [spill.STORED] * len(records)

    queue = SpillQueue(site.kind, site.make(), store)
    site.queues.append(queue)
    at = datetime(2026, 2, 3, 4, 5, 6, 789012, tzinfo=UTC)

    await queue.append(2**62, bytes(range(256)), at)

    await eventually(lambda: got)
    assert got == [Record(site.kind, 2**62, at, bytes(range(256)))]


async def test_the_spill_is_empty_once_all_records_are_stored(site: Site):
    queue = site.queue()
    await append(queue, *numbers(10))
    await eventually(lambda: not queue.waiting)

    await queue.close()

    assert await site.is_empty()


# -- Bad records -----------------------------------------------------------------------------------------------------


async def test_bad_records_are_quarantined_with_their_reasons_and_delay_no_others(site: Site):
    queue = site.queue()
    site.database.away = True
    await append(queue, b"a", b"poison", b"b", b"refused", b"c")
    site.database.away = False

    await eventually(lambda: not queue.waiting)

    assert site.database.stored == [b"a", b"b", b"c"]
    kept = {one.record.data: one.reason for one in await queue.engine.quarantined() if one.record}
    assert kept == {b"poison": "ValueError: invalid byte sequence", b"refused": "409 other content"}
    assert (await queue.state()).quarantined == 2


@pytest.mark.parametrize("states", [
    ["08006", "25006", "3D000", "40001", "42P01"], ["53100", "53300", "55P03", "57P03", "58030", "XX000"],
], ids=" ".join)  # fmt: skip
async def test_an_error_that_is_not_about_the_record_makes_it_wait_in_order_however_often_it_occurs(
    site: Site, states: list[str]
):
    queue = site.queue()

    for number, state in enumerate(states):
        site.database.says = state
        await append(queue, *numbers(3, 3 * number))
        await eventually(lambda: not queue.flowing)
        site.database.says = ""
        await eventually(lambda: not queue.waiting)

    assert site.database.stored == numbers(3 * len(states))
    assert await queue.engine.quarantined() == []


async def test_only_a_record_that_is_too_large_for_a_row_is_quarantined(site: Site):
    queue = site.queue()
    await append(queue, b"a", b"too large", b"b")

    await eventually(lambda: not queue.waiting)

    assert site.database.stored == [b"a", b"b"]
    assert [one.record.data for one in await queue.engine.quarantined() if one.record] == [b"too large"]


async def test_a_programming_error_quarantines_no_records(site: Site, monkeypatch: pytest.MonkeyPatch):
    """It would set all aside, one after the other."""
    real, broken = site.database.store, [True]

    async def store(records: list[Record]) -> list[spill.StoreResult]:
        return {}[0] if broken else await real(records)

    monkeypatch.setattr(site.database, "store", store)
    queue = site.queue()
    await append(queue, *numbers(3))
    await eventually(lambda: not queue.flowing)
    broken.clear()

    await eventually(lambda: not queue.waiting)
    assert (site.database.stored, await queue.engine.quarantined()) == (numbers(3), [])


# -- Death -----------------------------------------------------------------------------------------------------------

DIES = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from queueing.spill.record import Record

async def main():
    name, where, kind, lock_ttl = sys.argv[1:]
    if name == "file":
        from queueing.spill.file import FileEngine
        engine = FileEngine(Path(where), kind, limit=10**8)
    else:
        from queueing.spill.stream import StreamEngine
        engine = StreamEngine(where, kind, limit=10**8, lock_ttl=float(lock_ttl))
    await engine.append([Record(kind, 7, datetime.now(UTC), b"%06d" % n) for n in range(20)])
    await engine.batch(5)  # in hand when it dies
    print("kept", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_living_process_takes_over_the_records_of_a_killed_one_and_stores_them_first(site: Site):
    where = str(site.folder) if site.engine == "file" else settings.REDIS_URL
    process = subprocess.Popen(
        [sys.executable, "-c", DIES, site.engine, where, site.kind, str(HOLD)],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        env={**os.environ, "REGISTRY_ID": identity.name()},
    )
    assert process.stdout
    await asyncio.to_thread(process.stdout.readline)
    seen: list[bytes] = []
    queue = site.queue(lambda records: seen.extend(record.data for record in records))
    queue.start()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    await eventually(lambda: len(site.database.stored) == 20)

    assert site.database.stored == numbers(20)
    assert seen == numbers(20)
    await eventually(lambda: not queue.waiting)


async def test_a_process_that_ends_stores_what_it_can_and_keeps_the_rest_for_the_next(site: Site):
    first = site.queue()
    await append(first, b"stored")
    await first.close()
    second = site.queue()
    site.database.away = True
    await append(second, b"kept")
    await eventually(lambda: not second.flowing)
    started = time.monotonic()
    await second.close()
    took = time.monotonic() - started
    left = list(site.database.stored)

    site.database.away = False
    third = site.queue()
    third.start()

    await eventually(lambda: site.database.stored == [b"stored", b"kept"])
    assert left == [b"stored"]
    assert took < CLOSE_LIMIT + 1


async def test_only_the_batch_whose_commit_a_killed_process_did_not_see_is_stored_again(site: Site):
    """At least once: whoever stores must know what it has stored."""
    first = site.queue()
    site.database.away = True
    await append(first, *numbers(3))
    await eventually(lambda: not first.flowing)
    site.database.stored = numbers(3)  # it was committed, the answer was lost
    await first.close()

    site.database.away = False
    second = site.queue()
    second.start()
    await append(second, b"later")

    await eventually(lambda: b"later" in site.database.stored)
    assert site.database.stored == [*numbers(3), *numbers(3), b"later"]


# -- Turns -----------------------------------------------------------------------------------------------------------


async def test_a_write_does_not_overtake_spilled_records(site: Site):
    queue = site.queue()
    before = await queue.is_clear()
    site.database.away = True
    await append(queue, b"first")
    await eventually(lambda: not queue.flowing)

    started = time.monotonic()
    during = await queue.is_clear()
    took = time.monotonic() - started
    site.database.away = False
    await eventually(lambda: not queue.waiting)

    assert (before, during, await queue.is_clear()) == (True, False, True)
    assert took < HANDOVER_LIMIT


async def test_continuous_writers_return_to_direct_writes(site: Site):
    """Each looks whose turn it is: were nobody ever held, the spill would never be empty under load."""
    queue = site.queue()
    site.database.away = True
    await append(queue, *numbers(3 * HANDOVER))
    order: list[bytes] = site.database.stored
    direct: list[bytes] = []
    stop = asyncio.Event()

    async def write_on(name: bytes) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            data = b"%s-%06d" % (name, n)
            if await queue.is_clear():
                order.append(data)
                direct.append(data)
                await asyncio.sleep(0)
            else:
                await queue.append(7, data, datetime.now(UTC))

    writers = [asyncio.create_task(write_on(b"w%d" % n)) for n in range(20)]
    try:
        await eventually(lambda: queue.waiting > 3 * HANDOVER + 50)
        site.database.away = False
        await eventually(lambda: len(direct) > 100)
    finally:
        stop.set()
    await asyncio.gather(*writers)
    await eventually(lambda: not queue.waiting)

    for n in range(20):
        mine = [data for data in order if data.startswith(b"w%d-" % n)]
        assert mine == sorted(mine)
        assert len(mine) == len(set(mine))
    assert order[: 3 * HANDOVER] == numbers(3 * HANDOVER)


async def test_a_store_that_hangs_holds_a_writer_for_half_a_second_at_most(site: Site):
    queue = site.queue()
    site.database.gate.clear()
    await append(queue, b"first")

    started = time.monotonic()
    turn = await queue.is_clear()
    took = time.monotonic() - started
    site.database.gate.set()

    assert not turn
    assert took < HANDOVER_LIMIT + 1


# -- Full --------------------------------------------------------------------------------------------------------------


async def test_a_full_spill_returns_503_and_accepts_records_again_once_it_is_drained(site: Site):
    queue = site.queue(limit=1000)
    site.database.away = True
    await append(queue, bytes(700))

    with pytest.raises(Full) as refusal:
        await queue.append(7, bytes(700), datetime.now(UTC))
    full = await queue.state()
    site.database.away = False
    await eventually(lambda: not queue.waiting)
    await append(queue, bytes(700))
    again = await queue.state()

    assert (refusal.value.status, refusal.value.headers) == (503, {"Retry-After": "1"})
    assert "1000" in full.refused
    assert again.refused == ""


async def test_without_redis_the_stream_returns_503_within_a_second():
    queue = SpillQueue("gone", StreamEngine("redis://127.0.0.1:1/0", "gone", limit=1000), Database().store)

    started = time.monotonic()
    with pytest.raises(Full):
        await queue.append(7, b"x", datetime.now(UTC))

    assert time.monotonic() - started < 3  # of a busy machine; connecting alone may take five
    await queue.close(within=0)


async def test_a_redis_that_lost_everything_is_written_and_read_again():
    kind = "k" + "".join(chr(97 + int(d, 16)) for d in uuid4().hex[:12])
    database = Database()
    queue = SpillQueue(kind, StreamEngine(settings.REDIS_URL, kind, limit=10**6, lock_ttl=HOLD), database.store)
    await append(queue, b"before")
    await eventually(lambda: database.stored)

    async with Redis.from_url(settings.REDIS_URL) as redis:
        await redis.delete(*[name async for name in redis.scan_iter(f"{identity.prefix()}:spill:{kind}:*")])
    await append(queue, b"after")

    await eventually(lambda: database.stored == [b"before", b"after"])
    await queue.close()


# -- Seen and handled by people ------------------------------------------------------------------------------------------


async def test_the_state_has_the_number_of_waiting_records_their_age_and_whether_they_are_drained(site: Site):
    queue = site.queue()
    site.database.away = True
    at = datetime(2026, 1, 1, tzinfo=UTC)
    await queue.append(7, b"old", at)
    await append(queue, b"new")
    await eventually(lambda: not queue.flowing)

    now = await queue.state()

    assert (now.engine, now.records, now.oldest, now.draining) == (site.engine, 2, at, False)
    assert now.bytes > 6


async def test_quarantined_records_are_listed_replayed_and_dropped_by_a_command(settings, capsys, tmp_path: Path):
    """The command only appends again; whoever drains takes it over."""
    settings.SPILL_FOLDER = tmp_path
    database = Database()
    spill.register("commanded", database.store)
    try:
        await spill.append("commanded", 7, b"refused once")
        await spill.append("commanded", 7, b"refused twice")
        await eventually(lambda: _count(2))
        await in_thread(call_command, "spill", "list")
        listed = capsys.readouterr().out
        first, second = [one.id for one in await spill.quarantined("commanded")]
        with pytest.raises(CommandError, match="nothing is quarantined as nope"):
            await in_thread(call_command, "spill", "drop", "nope")

        await in_thread(call_command, "spill", "drop", first)
        database.store = _takes_all(database)  # type: ignore[method-assign]
        await spill.loops.close()
        spill.register("commanded", database.store)
        await in_thread(call_command, "spill", "replay", "--all")
        await spill.start()

        await eventually(lambda: database.stored)
        assert first in listed
        assert "409 other content" in listed
        assert database.stored == [b"refused twice"]
        assert await spill.quarantined("commanded") == []
        assert second != first
    finally:
        await spill.loops.close()
        del spill.KINDS["commanded"]


async def test_a_kind_that_is_registered_later_drains_the_records_left_of_it(settings, tmp_path: Path):
    settings.SPILL_FOLDER = tmp_path
    left = FileEngine(tmp_path, "later", limit=10**6)
    await left.append([Record("later", 7, datetime.now(UTC), b"left")])
    await left.close()
    database = Database()
    await spill.start()
    try:
        spill.register("later", database.store)

        await eventually(lambda: database.stored == [b"left"])
    finally:
        await spill.loops.close()
        del spill.KINDS["later"]


async def _count(wanted: int) -> bool:
    return len(await spill.quarantined("commanded")) == wanted


def _takes_all(database: Database) -> Any:
    async def store(records: list[Record]) -> list[spill.StoreResult]:
        database.stored += [record.data for record in records]
        return [spill.STORED] * len(records)

    return store


# -- The stream as the permanent way in -----------------------------------------------------------------------------------


async def test_one_worker_drains_the_shared_stream_in_order_and_another_takes_over_when_it_dies():
    kind, database = "k" + "".join(chr(97 + int(d, 16)) for d in uuid4().hex[:12]), Database()

    def engine() -> SharedStreamEngine:
        return SharedStreamEngine(settings.REDIS_URL, kind, limit=10**7, lock_ttl=HOLD)

    webs = [SpillQueue(kind, engine(), database.store, drains=False) for _ in range(2)]
    workers = [SpillQueue(kind, engine(), database.store) for _ in range(2)]
    for worker in workers:
        worker.start()
    await append(webs[0], *numbers(30))
    await append(webs[1], *numbers(30, 30))
    await eventually(lambda: len(database.stored) == 60)
    [carrier] = [worker for worker in workers if worker.engine.locks.owned]  # type: ignore[attr-defined]
    other = next(worker for worker in workers if worker is not carrier)
    carrier._task.cancel()  # type: ignore[union-attr]  # dies without a word: its lock has to lapse
    await append(webs[0], *numbers(30, 60))

    await eventually(lambda: len(database.stored) == 90)
    assert database.stored == numbers(90)
    assert other.engine.locks.owned == ["intake"]  # type: ignore[attr-defined]
    assert (await webs[0].state()).records == 0
    for queue in (*webs, *workers):
        await queue.close(within=0)
    async with Redis.from_url(settings.REDIS_URL) as redis:
        await redis.delete(f"{identity.prefix()}:spill:{kind}:intake", f"{identity.prefix()}:spill:{kind}:aside")


# -- Whose it is -------------------------------------------------------------------------------------------------


async def test_another_process_sees_which_tenants_have_waiting_or_quarantined_writes(site: Site):
    site.database.away = True
    queue, elsewhere = site.queue(), site.make()
    await append(queue, *numbers(3))

    waiting = [await elsewhere.holds(tenant) for tenant in (7, 8)]
    site.database.away = False
    await eventually(lambda: not queue.waiting)
    stored = await elsewhere.holds(7)
    await append(queue, b"refused")
    await eventually(lambda: not queue.waiting)
    aside = [await elsewhere.holds(tenant) for tenant in (7, 8)]
    await elsewhere.close()

    assert (waiting, stored, aside) == ([True, False], False, [True, False])
