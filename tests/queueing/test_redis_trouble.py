"""Redis that refuses writes or does not answer: work continues without it, and uses it again afterwards."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import pytest
import redis
from redis.asyncio import Redis

from payments.models import Processor
from queueing.models import ChoreRun
from queueing.spill import stream
from queueing.spill.record import STORED, Full, Record
from queueing.spill.shared import SharedStreamEngine
from queueing.spill.stream import StreamEngine
from queueing.work import chore_runs, entry, rq_queues, without_redis
from registry.data import chores, faults, identity, redis_health
from registry.errors import Unavailable
from registry.models import Lease, Tenant
from registry.servers import embedded
from registry.servers.processes import signal_process
from tests.bed.receiver import Receiver
from tests.bed.valkey import Troubled
from tests.conftest import Api, eventually
from tests.factories import in_thread, make_processor
from tests.payments.inbound import deliver, event, make_account, rows
from tests.payments.refunding import ask, until_all
from tests.queueing.hooks import endpoint, until
from tests.queueing.processes import Processes, WorkerProcess, alive
from tests.settling import accept, until_settled

LIMIT = 60.0  # seconds for a process to start, or to notice, on a busy machine
STOP_LIMIT = 10.0  # seconds until `up` must be gone; it takes five on a machine with nothing else to do


@pytest.fixture
def trouble(valkey: embedded.Valkey) -> Iterator[Troubled]:
    with Troubled(valkey) as found:
        yield found


@pytest.fixture
async def account(tenant: Tenant) -> Processor:
    """What sends events. Payments go to the cheaper sandbox."""
    await in_thread(make_processor, tenant, "sandbox")
    return await in_thread(make_account, tenant, fee="0.90")


async def everything_goes_on(tenant: Tenant, api: Api, account: Processor) -> None:
    """A payment is settled, its refund paid, both are told to a webhook endpoint, and a processor's event is handled."""
    async with Receiver() as receiver:
        hook = await endpoint(tenant, receiver.url, "payment.succeeded", "refund.returned")
        [one] = await accept(tenant)
        await until_settled(tenant, within=LIMIT)
        status, *_ = await ask(api, one)
        assert status == 202
        await until_all(one, "returned")
        await until(hook, "delivered", count=2)
    status, _ = await deliver(api.address, account, event())
    assert status == 200
    await eventually(lambda: _handled(tenant), within=LIMIT)


async def _handled(tenant: Tenant) -> bool:
    return set(await rows(tenant, "closed")) == {"done"}


async def workers_of_rq(valkey: embedded.Valkey) -> set[str]:
    async with Redis.from_url(valkey.url, decode_responses=True) as client:
        return await client.smembers(f"rq:workers:{rq_queues.queue_name('drain')}")


@pytest.mark.parametrize("name", ["full", "no_answer"])
async def test_a_worker_started_while_redis_is_unavailable_does_all_work_and_returns_to_redis_by_itself(
    tenant, api, account, start: Processes, trouble: Troubled, valkey, name: str
):
    with trouble.of(name):
        [worker] = await start()
        await everything_goes_on(tenant, api, account)
        assert len(start.lines) <= 3, start.lines

    await eventually(lambda: workers_of_rq(valkey), within=without_redis.STEADY + LIMIT)
    await everything_goes_on(tenant, api, account)
    assert worker.process.returncode is None
    assert len(start.lines) <= 6, start.lines


async def test_a_drain_that_ends_while_redis_is_full_is_started_again(
    tenant, api, account, start: Processes, trouble: Troubled, valkey
):
    [worker] = await start()
    assert await workers_of_rq(valkey)
    with trouble.of("full"):
        before = worker.horse
        signal_process(before, signal.SIGTERM)  # as at the end of its job
        await eventually(lambda: worker.horse not in (0, before), within=LIMIT)
        await everything_goes_on(tenant, api, account)

        assert worker.process.returncode is None
        assert len(start.lines) <= 5, start.lines


@pytest.mark.parametrize("name", ["full", "no_answer"])
async def test_a_worker_stopped_while_redis_is_unavailable_exits_in_time_with_its_child(
    start: Processes, trouble: Troubled, name: str
):
    [before] = await start()  # by a job
    with trouble.of(name):
        [after] = await start()  # without Redis
        asked = time.monotonic()
        for worker in (before, after):
            signal_process(worker.pid, signal.SIGTERM)

        codes = [await asyncio.wait_for(worker.process.wait(), LIMIT) for worker in (before, after)]

        assert codes == [0, 0]
        assert time.monotonic() - asked < STOP_LIMIT
        # A child that a busy machine kept from its last statement is killed: its row says "alive" until it has been silent.
        await eventually(none_is_alive)


async def none_is_alive() -> bool:
    return not await alive()


async def test_chores_run_and_no_process_restarts_while_redis_is_full(start: Processes, trouble: Troubled):
    with trouble.of("full"):
        housekeeping = await start.run("worker", "--housekeeping", level="INFO")
        cron = await start.run("cron")

        await eventually(lambda: any("ledger proven" in line for line in start.lines), within=LIMIT)
        await eventually(lambda: any('"use": "schedule"' in line for line in start.lines), within=LIMIT)

        assert (housekeeping.process.returncode, cron.process.returncode) == (None, None)
        assert sum("Redis is full" in line for line in start.lines) == 2

    def jobs() -> bool:
        with redis.Redis.from_url(trouble.url) as client:
            return bool(client.keys(f"rq:cron_job:{identity.name()}:*"))

    # Until Redis has been steady the housekeeping worker keeps the lease, and runs what is due by itself.
    await eventually(lambda: _decides(cron), within=without_redis.STEADY + LIMIT)
    await ChoreRun.async_objects.all().adelete()  # all are due again
    await eventually(jobs, within=LIMIT)
    await _stop(cron)


async def _decides(cron: WorkerProcess) -> bool:
    """Whether this process holds the lease of the one that decides which chores are due."""
    held = Lease.async_objects.filter(name=chore_runs.CRON, holder__contains=f" {cron.pid} ")
    return await held.aexists()


async def _stop(one: WorkerProcess) -> None:
    signal_process(one.pid, signal.SIGTERM)
    assert await asyncio.wait_for(one.process.wait(), LIMIT) == 0


async def test_without_redis_each_chore_runs_at_its_interval_even_if_others_fail(monkeypatch):
    done: list[str] = []

    async def works() -> None:
        done.append("works")

    async def fails() -> None:
        done.append("fails")
        raise RuntimeError("no luck")

    made = {"fails": chores.Chore(0, fails), "works": chores.Chore(0, works), "rare": chores.Chore(3600, works)}
    monkeypatch.setattr(chores, "CHORES", made)

    task = asyncio.create_task(entry._housekeep())
    await eventually(lambda: len(done) >= 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert done[:5] == ["fails", "works", "works", "fails", "works"]


async def test_without_redis_and_database_chores_log_it_once(monkeypatch, caplog):
    tries: list[str] = []

    async def waits() -> None:
        tries.append("again")
        raise Unavailable("the database is away")

    monkeypatch.setattr(chores, "CHORES", {"waits": chores.Chore(0, waits)})
    monkeypatch.setattr(entry, "PARENT_CHECK", 0.01)
    monkeypatch.setattr(faults._LastLine, "at", -faults.LOG_INTERVAL)

    task = asyncio.create_task(entry._housekeep())
    await eventually(lambda: len(tries) > 3)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warned == ["a chore was skipped; it runs again at its next time"]


# -- The spill in Redis ------------------------------------------------------------------------------------------


SOON = 1.0  # seconds that a busy machine adds


@pytest.fixture
def answer_limit(monkeypatch: pytest.MonkeyPatch) -> float:
    """An append waits for Redis half the product's time, which is less than a second; a busy one that is well answers within it."""
    assert stream.ANSWER_LIMIT < 1
    monkeypatch.setattr(stream, "ANSWER_LIMIT", stream.ANSWER_LIMIT / 2)
    return stream.ANSWER_LIMIT


@pytest.fixture
async def engine(valkey: embedded.Valkey, answer_limit: float) -> AsyncIterator[StreamEngine]:
    found = StreamEngine(valkey.url, "trouble", limit=10**6)
    yield found
    await found.close()


@pytest.mark.parametrize("name", ["full", "read_only", "too_few_replicas", "not_permitted", "no_answer"])
async def test_the_stream_soon_refuses_records_that_redis_does_not_accept(
    engine: StreamEngine, trouble: Troubled, name: str, answer_limit: float
):
    record = Record("trouble", 1, datetime.now(UTC), b"before")
    await engine.append([record])

    with trouble.of(name):
        asked = time.monotonic()
        with pytest.raises(Full):
            await engine.append([record])
        took = time.monotonic() - asked

    assert took < answer_limit + SOON
    await engine.append([record])


async def test_a_stream_that_fills_redis_is_drained_also_by_a_process_started_later(
    valkey: embedded.Valkey, trouble: Troubled
):
    """Its lock could not be taken, because a lock is a write: what had been accepted waited until somebody made room."""
    first = SharedStreamEngine(valkey.url, "filling", limit=10**6)
    await first.append([Record("filling", 1, datetime.now(UTC), b"%d" % n) for n in range(20)])
    later = SharedStreamEngine(valkey.url, "filling", limit=10**6)
    try:
        with trouble.of("full"):
            async for _ in later.take_over():
                pass
            found = await later.batch(100)
            await later.settle(found, [STORED] * len(found))

            assert [item.record.data for item in found if item.record] == [b"%d" % n for n in range(20)]
            assert await later.shared_length() == 0
    finally:
        await first.close()
        await later.close()


async def test_while_the_stream_refuses_records_not_every_payment_waits_for_it(
    valkey: embedded.Valkey, trouble: Troubled, answer_limit: float
):
    engine = SharedStreamEngine(valkey.url, "relayed", limit=10**6)
    record = Record("relayed", 1, datetime.now(UTC), b"x")
    redis_health.reset()
    try:
        with trouble.of("no_answer"):
            asked = time.monotonic()
            for _ in range(10):
                with pytest.raises(Full):
                    await engine.append([record])
            assert time.monotonic() - asked < 2 * answer_limit + SOON
    finally:
        await engine.close()
        redis_health.reset()
