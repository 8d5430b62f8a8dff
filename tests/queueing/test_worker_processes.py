"""Real `manage.py worker` processes, killed and told to stop, beside a Valkey that forgets and goes away."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
from django.db import connection

from payments import ledger
from queueing.models import Worker
from registry import database, embedded
from registry.processes import children, parent_of, signal_process
from tests.bed import HttpProcessor
from tests.conftest import at_work, eventually
from tests.settling import accept, payments, tries, until_settled

PROJECT = Path(__file__).resolve().parents[2]
STOP_LIMIT = 7.0  # seconds; `up` kills after that
START_LIMIT = 90.0  # seconds for a Python with Django and RQ, on a busy machine
RECOVERY = 120.0  # seconds from a kill to the last settled payment, on a busy machine: silence is noticed after 5


@pytest.fixture(scope="module")
def valkey() -> Iterator[embedded.Valkey]:
    """One of our own: the others must not be emptied."""
    folder = Path(tempfile.mkdtemp(prefix="registry-test-", dir="/tmp"))
    folder.chmod(0o711)
    server = embedded.Valkey(folder)
    server.start()
    yield server
    server.stop()
    shutil.rmtree(folder)


class WorkerProcess:
    """`manage.py worker`: the RQ worker, and the horse that drains."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def horse(self) -> int:
        return next(iter(children(self.pid)), 0)

    async def end(self) -> None:
        horses = children(self.pid)
        for pid in (self.pid, *horses):
            signal_process(pid, signal.SIGKILL)
        await self.process.wait()


@pytest.fixture
async def start(valkey, tmp_path) -> AsyncIterator:
    """Starts a worker and waits until its drain is at work; ends all of them after the test."""
    started: list[WorkerProcess] = []
    environ = {**os.environ, "DATABASE_URL": _test_database(), "REDIS_URL": valkey.url, "LOG_LEVEL": "WARNING"}
    log = (tmp_path / "workers.log").open("w")

    async def begin(number: int = 1) -> list[WorkerProcess]:
        before = len(await alive())
        fresh = []
        for _ in range(number):
            command = (sys.executable, str(PROJECT / "manage.py"), "worker", "--slot", str(len(started) + 1))
            process = await asyncio.create_subprocess_exec(*command, env=environ, cwd=PROJECT, stdout=log, stderr=log)
            started.append(WorkerProcess(process))
            fresh.append(started[-1])
        await eventually(lambda: _more_at_work(before + number), within=START_LIMIT)
        return fresh

    yield begin
    for worker in started:
        await worker.end()
    log.close()
    print((tmp_path / "workers.log").read_text()[-4000:])


def _test_database() -> str:
    settings = connection.settings_dict
    password = f":{settings['PASSWORD']}" if settings.get("PASSWORD") else ""
    return f"postgres://{settings['USER']}{password}@{settings['HOST']}:{settings['PORT']}/{settings['NAME']}"


async def alive() -> list[Worker]:
    try:
        return [worker async for worker in Worker.async_objects.all().alive()]
    finally:
        await database.release()


async def _more_at_work(number: int) -> bool:
    return len(await alive()) >= number


async def all_settled_once(tenant, ids, *processors: HttpProcessor, within: float = RECOVERY) -> None:
    """Every payment is booked at one processor, once, as we have it; and the ledger agrees."""
    settled = await until_settled(tenant, within=within)

    booked = {one: (name, booking.requested_at) for name, p in _named(processors) for one, booking in p.booked.items()}
    assert sorted(one for p in processors for one in p.booked) == sorted(map(str, ids))
    assert {str(row.correlation_id): (row.processor, row.requested_at) for row in settled} == booked
    proof = await ledger.prove(tenant_id=tenant.pk)
    assert proof.sound
    assert proof.payments == len(ids)


def _named(processors) -> list[tuple[str, HttpProcessor]]:
    return list(zip(("default", "fallback"), processors, strict=False))


async def test_several_workers_share_a_backlog_and_book_nothing_twice(tenant, default, fallback, start):
    ids = await accept(tenant, 600)
    default.delays(20)

    await start(2)
    await all_settled_once(tenant, ids, default, fallback)

    shares = await database.fetch(
        "SELECT worker_id, count(*) FROM payments_attempt WHERE tenant_id = %s GROUP BY 1", [tenant.pk]
    )
    assert default.duplicates == fallback.duplicates == 0
    assert sum(share for _, share in shares) == 600


async def test_kills_of_a_horse_and_of_another_ones_parent_lose_nothing(tenant, default, fallback, start):
    one, other = await start(2)
    default.delays(500)
    ids = await accept(tenant, 500)
    await eventually(lambda: default.in_progress >= 400)  # more than one drain may have of a tenant: both are at it
    horse, orphan = one.horse, other.horse

    signal_process(horse, signal.SIGKILL)
    signal_process(other.pid, signal.SIGKILL)

    # Nobody would stop the orphan any more: it leaves by itself.
    await eventually(lambda: not _lives(orphan), within=RECOVERY)
    await all_settled_once(tenant, ids, default, fallback)
    assert one.process.returncode is None
    assert one.horse not in (0, horse)
    doubtful = [row for row in await payments(tenant) if row.attempt > 1]
    assert doubtful
    for row in doubtful[:20]:
        assert len({(a.processor, a.requested_at) for a in await tries(row.correlation_id)}) == 1


def _lives(pid: int) -> bool:
    return parent_of(pid) != 0 and Path(f"/proc/{pid}/cmdline").read_bytes() != b""


async def test_told_to_stop_a_worker_hands_back_what_hangs_and_is_gone_in_time(tenant, default, fallback, start):
    [worker] = await start()
    default.books_but_never_answers()
    ids = await accept(tenant, 20)
    await eventually(lambda: len(default.booked) == 20)
    horse = worker.horse
    asked = time.monotonic()

    signal_process(worker.pid, signal.SIGTERM)
    async with asyncio.timeout(STOP_LIMIT):
        code = await worker.process.wait()
    took = time.monotonic() - asked
    rows = await payments(tenant)
    default.recovers()

    assert (code, took < STOP_LIMIT, _lives(horse)) == (0, True, False)
    assert {(row.status, row.lease_id, row.code) for row in rows} == {("uncertain", None, "worker_left")}
    assert not await alive()
    async with at_work():
        await all_settled_once(tenant, ids, default, fallback)


async def test_a_valkey_that_is_emptied_and_restarted_meanwhile_is_nobodys_business(
    tenant, default, fallback, start, valkey
):
    [worker] = await start()
    default.delays(30)
    ids = await accept(tenant, 200)
    await eventually(lambda: len(default.booked) >= 20)

    await asyncio.to_thread(_empty, valkey)
    ids += await accept(tenant, 200)
    await eventually(lambda: len(default.booked) >= 220)
    await asyncio.to_thread(_kill, valkey)
    ids += await accept(tenant, 200)
    await eventually(lambda: len(default.booked) >= 420)
    await asyncio.to_thread(valkey.start)
    await asyncio.to_thread(_empty, valkey)
    ids += await accept(tenant, 50)

    await all_settled_once(tenant, ids, default, fallback)
    assert worker.process.returncode is None

    # And the worker still finds itself a drain when this one ends.
    signal_process(worker.horse, signal.SIGTERM)
    ids += await accept(tenant, 50)
    await all_settled_once(tenant, ids, default, fallback)


def _empty(valkey: embedded.Valkey) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()


def _kill(valkey: embedded.Valkey) -> None:
    pid = valkey.pid()
    assert pid
    os.kill(pid, signal.SIGKILL)
    valkey.see_gone()
