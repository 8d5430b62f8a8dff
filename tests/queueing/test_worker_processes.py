"""Real `manage.py worker` processes: killed, stopped, and with a Valkey that loses its data or is unavailable."""

import asyncio
import os
import signal
import time
from pathlib import Path

import redis

from payments.books import ledger
from queueing.models import Worker
from queueing.work import pools
from registry.data import database
from registry.servers import embedded
from registry.servers.plan import pool_worker
from registry.servers.processes import parent_of, signal_process
from tests.bed import HttpProcessor
from tests.conftest import at_work, eventually
from tests.queueing.processes import START_LIMIT, alive
from tests.settling import accept, payments, tries, until_settled

STOP_LIMIT = 7.0  # seconds; `up` kills after that
RECOVERY = 120.0  # seconds from a kill to the last settled payment, on a busy machine: silence is noticed after 5


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


async def test_killing_one_workers_child_and_another_workers_parent_loses_nothing(tenant, default, fallback, start):
    one, other = await start(2)
    default.delays(2000)
    ids = await accept(tenant, 500)
    await eventually(lambda: default.in_progress >= 400)  # more than one drain may have of a tenant: both are at it
    horse, orphan = one.horse, other.horse

    signal_process(horse, signal.SIGKILL)
    signal_process(other.pid, signal.SIGKILL)
    default.delays(20)

    # Nothing else would stop the orphan: it ends by itself.
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


async def test_a_stopped_worker_gives_back_hanging_rows_and_exits_in_time(tenant, default, fallback, start):
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


async def test_payments_settle_while_valkey_is_emptied_and_restarted(tenant, default, fallback, start, valkey):
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

    # And the worker enqueues a new drain when this one ends.
    signal_process(worker.horse, signal.SIGTERM)
    ids += await accept(tenant, 50)
    await all_settled_once(tenant, ids, default, fallback)
    assert not [line for line in start.lines if "exception raised while executing" in line]  # nothing failed


def _empty(valkey: embedded.Valkey) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()


def _kill(valkey: embedded.Valkey) -> None:
    pid = valkey.pid()
    assert pid
    os.kill(pid, signal.SIGKILL)
    valkey.see_gone()


async def test_a_worker_of_a_pool_says_what_it_takes_and_how_large_its_pool_is(start):
    [pool] = pools.read(["heavy=jobs/payments.export,webhooks:1-3"])
    _, _, *arguments = pool_worker(pool, 1).command  # without python and manage.py
    await start.run(*arguments)

    found = await eventually(lambda: _of_pool("heavy", 2), within=START_LIMIT)

    assert {worker.queue for worker in found} == {"jobs", "webhooks"}
    assert {(*worker.takes, worker.pool_size) for worker in found} == {("jobs/payments.export", "webhooks", "1-3")}


async def _of_pool(name: str, number: int) -> list[Worker]:
    found = [worker for worker in await alive() if worker.pool == name]
    return found if len(found) == number else []
