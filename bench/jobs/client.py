"""Submit jobs through HTTP: `python -m bench.jobs.client PORT JOBS CONNECTIONS PER_CALL KEY`, in a process of its own, on uvloop."""

import asyncio
import json
import sys
import time

import uvloop

from bench.queue.wire import connect, poster

PAYLOAD = "0001-00001-000000001-bench--"
LIMIT = 300.0  # seconds


async def main(port: int, jobs: int, connections: int, per_call: int, key: str) -> dict[str, float]:
    starts = iter(range(0, jobs, per_call))
    post = poster("/jobs/batch", {"Authorization": f"Bearer {key}"})

    async def produce() -> None:
        connection = await connect(port)
        for at in starts:
            count = min(per_call, jobs - at)
            answer = await connection.ask(post(body(count)))
            if answer.status != 200 or answer.body.count(b'"queued"') != count:
                raise AssertionError(f"a batch was answered {answer.status}: {answer.body[:300]!r}")

    spent, start = time.process_time(), time.perf_counter()
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*(produce() for _ in range(connections)))
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - spent}


def body(count: int) -> str:
    item = json.dumps({"kind": "bed.nothing", "input": {"payload": PAYLOAD}})
    return f'{{"items":[{",".join([item] * count)}]}}'


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main(*map(int, sys.argv[1:5]), sys.argv[5]))))
