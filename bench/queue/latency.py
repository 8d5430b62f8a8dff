"""Latency from the first byte of a push to the last byte of the waiting pop, in an idle system."""

import asyncio
import random
import time

import uvloop

from bench.figures import Effort, Figure, median, quantile
from bench.place import Place, place, progress, uvicorn, web
from bench.queue.load import QUEUE_MODE
from bench.queue.wire import Connection, acking, connect, getter, payload, popped, poster, pushing

SAMPLES = {Effort.QUICK: 20, Effort.NORMAL: 200, Effort.FULL: 500}
PAUSE = (0.03, 0.1)  # seconds between two messages: the reader waits, the system becomes idle
LIMIT = 10.0  # seconds for one message
QUEUE = "latency"


def run(effort: Effort) -> list[Figure]:
    samples = SAMPLES[effort]
    with place("queue_latency") as here, web(here) as one, uvicorn(here, "web-2", "registry.asgi:application") as other:
        same = uvloop.run(sample(here, one.port, one.port, samples))
        across = uvloop.run(sample(here, one.port, other.port, samples))
    return [
        Figure("push to parked pop, quiet: median", median(same), "ms", 10, at_most=True, note=spread(same)),
        Figure("push to pop parked at another process: median", median(across), "ms", 50, at_most=True,
               note=spread(across)),
    ]  # fmt: skip


def spread(times: list[float]) -> str:
    return f"p99 {quantile(times, 0.99):.1f} ms, worst {max(times):.1f} ms, {len(times)} messages"


async def sample(here: Place, push_port: int, pop_port: int, samples: int) -> list[float]:
    """Milliseconds."""
    reader, writer = await connect(pop_port), await connect(push_port)
    times = []
    with progress(still=True) as bars:
        bar = bars.add_task("pushing to who waits", total=samples)
        for number in range(-2, samples):  # two for warm-up
            took = await one_message(here, reader, writer, (pop_port, number + 2))
            if number >= 0:
                times.append(took)
            bars.update(bar, completed=max(number, 0))
            bars.refresh()
    reader.transport.close()
    writer.transport.close()
    return times


async def one_message(here: Place, reader: Connection, writer: Connection, place_of: tuple[int, int]) -> float:
    producer, number = place_of[0] % 10_000, place_of[1]
    async with asyncio.timeout(LIMIT):
        waiting = asyncio.ensure_future(
            reader.ask(getter(f"/api/v1/pop/queue/{QUEUE}?batch=10&wait=true&timeout=10000", here.headers))
        )
        await asyncio.sleep(random.uniform(*PAUSE))
        body = pushing(QUEUE, producer, 0, [number])
        start = time.perf_counter()
        pushed = await writer.ask(poster("/api/v1/push", here.headers)(body))
        answer = await waiting
        took = 1000 * (time.perf_counter() - start)
        if (pushed.status, answer.status) != (201, 200):
            raise AssertionError(f"push {pushed.status}, pop {answer.status}: {answer.body[:300]!r}")
        messages = popped(answer.body).messages
        if [message.data for message in messages] != [payload(producer, 0, number)]:
            raise AssertionError(f"message {number} wanted: {answer.body[:300]!r}")
        await reader.ask(poster("/api/v1/ack", here.headers)(acking(messages, QUEUE_MODE)))
    return took
