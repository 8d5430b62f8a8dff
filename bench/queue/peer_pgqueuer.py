"""PgQueuer's part of the comparison: `python -m bench.queue.peer_pgqueuer enqueue|work DATABASE_URL JOBS`.

Set up by its performance guide: its autovacuum settings, a pool for the producer, a connection of asyncpg's for the
worker, a large batch. Its tables are durable, which is its default.
"""

import json
import sys
import time

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, AsyncpgPoolDriver, Job, PgQueuer, Queries
from pgqueuer.types import QueueExecutionMode

AT_ONCE = 1_000  # jobs per statement: more than ours gets per request
BATCH = 100  # jobs per claim
PAYLOAD = b"0001-00001-000000001-bench--"


async def enqueue(url: str, jobs: int) -> dict[str, float]:
    async with asyncpg.create_pool(url, min_size=2, max_size=8) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        if not await queries.has_table("pgqueuer"):
            await queries.install()
            await queries.optimize_autovacuum()
        start = time.perf_counter()
        for at in range(0, jobs, AT_ONCE):
            count = min(AT_ONCE, jobs - at)
            await queries.enqueue(["job"] * count, [PAYLOAD] * count, [0] * count)
        return {"seconds": time.perf_counter() - start, "jobs": jobs, "left": await left(queries)}


async def work(url: str) -> dict[str, float]:
    connection = await asyncpg.connect(url)
    queuer = PgQueuer(AsyncpgDriver(connection))
    done = 0

    @queuer.entrypoint("job")
    async def job(job: Job) -> None:
        nonlocal done
        done += 1

    start = time.perf_counter()
    await queuer.run(batch_size=BATCH, mode=QueueExecutionMode.drain)
    seconds = time.perf_counter() - start
    said = {"seconds": seconds, "jobs": done, "left": await left(Queries(AsyncpgDriver(connection)))}
    await connection.close()
    return said


async def left(queries: Queries) -> int:
    return sum(size.count for size in await queries.queue_size())


if __name__ == "__main__":
    print(
        json.dumps(
            uvloop.run(enqueue(sys.argv[2], int(sys.argv[3])) if sys.argv[1] == "enqueue" else work(sys.argv[2]))
        )
    )
