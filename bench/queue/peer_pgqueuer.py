"""PgQueuer's part of the comparisons: `python -m bench.queue.peer_pgqueuer enqueue DATABASE_URL JOBS [TASKS PER_CALL]`, then
`… work DATABASE_URL JOBS [BATCH]`.

Set up by its performance guide: its autovacuum settings, a pool for the producer, a connection of asyncpg's for the
worker, a large batch. Its tables are durable, which is its default.
"""

import asyncio
import json
import sys
import time

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, AsyncpgPoolDriver, Job, PgQueuer, Queries
from pgqueuer.types import QueueExecutionMode

AT_ONCE = 1_000  # jobs per statement: more than ours gets per request
BATCH = 100  # jobs per claim
POOL = 8  # connections: more make single jobs slower
PAYLOAD = b"0001-00001-000000001-bench--"


async def enqueue(url: str, jobs: int, tasks: int = 1, per_call: int = AT_ONCE) -> dict[str, float]:
    """Each of `tasks` makes calls for `per_call` jobs, one after the other, until there are enough."""
    async with asyncpg.create_pool(url, min_size=min(tasks + 1, POOL), max_size=POOL) as pool:
        queries = Queries(AsyncpgPoolDriver(pool))
        if not await queries.has_table("pgqueuer"):
            await queries.install()
            await queries.optimize_autovacuum()
        starts = iter(range(0, jobs, per_call))

        async def produce() -> None:
            for at in starts:
                if per_call == 1:
                    await queries.enqueue("job", PAYLOAD)
                else:
                    count = min(per_call, jobs - at)
                    await queries.enqueue(["job"] * count, [PAYLOAD] * count, [0] * count)

        spent, start = time.process_time(), time.perf_counter()
        await asyncio.gather(*(produce() for _ in range(tasks)))
        seconds, spent = time.perf_counter() - start, time.process_time() - spent
        return {"seconds": seconds, "jobs": jobs, "left": await left(queries), "cpu": spent}


async def work(url: str, batch: int = BATCH) -> dict[str, float]:
    connection = await asyncpg.connect(url)
    queuer = PgQueuer(AsyncpgDriver(connection))
    done = 0

    @queuer.entrypoint("job")
    async def job(job: Job) -> None:
        nonlocal done
        done += 1

    spent, start = time.process_time(), time.perf_counter()
    await queuer.run(batch_size=batch, mode=QueueExecutionMode.drain)
    seconds, spent = time.perf_counter() - start, time.process_time() - spent
    said = {"seconds": seconds, "jobs": done, "left": await left(Queries(AsyncpgDriver(connection))), "cpu": spent}
    await connection.close()
    return said


async def left(queries: Queries) -> int:
    return sum(size.count for size in await queries.queue_size())


if __name__ == "__main__":
    part, url, jobs, *options = sys.argv[1:]
    main = enqueue(url, int(jobs), *map(int, options)) if part == "enqueue" else work(url, *map(int, options))
    print(json.dumps(uvloop.run(main)))
