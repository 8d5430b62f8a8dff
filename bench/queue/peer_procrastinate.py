"""procrastinate's part of the comparison: `python -m bench.queue.peer_procrastinate enqueue|work DATABASE_URL JOBS`.

Jobs are enqueued by its batch_defer_async, a thousand at a time; one asynchronous worker of psycopg's pool works on many at once
and stops when nothing is left.
"""

import asyncio
import json
import sys
import time

import procrastinate
import uvloop
from procrastinate.exceptions import ConnectorException

AT_ONCE = 1_000  # jobs per statement: more than ours gets per request
CONCURRENCY = 20  # jobs at once; it claims them one by one
PAYLOAD = "0001-00001-000000001-bench"


async def main(part: str, url: str, jobs: int) -> dict[str, float]:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, min_size=4, max_size=CONCURRENCY))
    done = 0

    @app.task(name="job", queue="jobs")
    async def job(payload: str) -> None:
        nonlocal done
        done += 1

    async with app.open_async():
        if part == "enqueue":
            await install(app)
        start = time.perf_counter()
        if part == "enqueue":
            for at in range(0, jobs, AT_ONCE):
                await job.batch_defer_async(*({"payload": PAYLOAD} for _ in range(min(AT_ONCE, jobs - at))))
            done = jobs
        else:
            await app.run_worker_async(
                queues=["jobs"],
                concurrency=CONCURRENCY,
                wait=False,
                delete_jobs="successful",
                install_signal_handlers=False,
            )
        seconds = time.perf_counter() - start
        left = await app.connector.execute_query_one_async(
            "SELECT count(*) AS n FROM procrastinate_jobs WHERE status = 'todo'"
        )
    return {"jobs": done, "left": left["n"], "seconds": seconds}


async def install(app: procrastinate.App) -> None:
    try:
        await app.schema_manager.apply_schema_async()
    except ConnectorException:  # the schema exists from an earlier round
        await asyncio.sleep(0)


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
