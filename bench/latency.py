"""Latency from a payment's first byte to its success on the tenant's websocket, in an idle system."""

import asyncio
import json
import random
import time
import uuid

import uvloop
from websockets.asyncio.client import ClientConnection, connect

from bench.figures import Effort, Figure, median, quantile
from bench.place import Place, place, processors, progress, service
from bench.users import Wire

SAMPLES = {Effort.QUICK: 20, Effort.NORMAL: 200, Effort.FULL: 500}
PAUSE = (0.05, 0.15)  # seconds between two payments: the system becomes idle in between
LIMIT = 10.0  # seconds for one payment to arrive on the socket


def run(effort: Effort) -> list[Figure]:
    with place("latency") as here, processors() as (default, fallback):
        here.add_processors(default, fallback)
        with service(here) as up:
            accepted, seen = uvloop.run(sample(here, up.port, SAMPLES[effort]))
    note = f"p99 {quantile(seen, 0.99):.1f} ms, {len(seen)} payments; accepted after {median(accepted):.1f} ms"
    return [Figure("accepted, settled, on the websocket: median", median(seen), "ms", 100, at_most=True, note=note)]


async def sample(here: Place, port: int, samples: int) -> tuple[list[float], list[float]]:
    """Milliseconds until the response, and until the message on the websocket."""
    accepted, seen = [], []
    paying = Wire(port)
    with progress(still=True) as bars:
        bar = bars.add_task("paying and watching", total=samples)
        async with connect(f"ws://127.0.0.1:{port}/ws/payments", additional_headers=here.headers) as socket:
            await one(here, paying, socket)  # warm-up: opens everything that opens on first use
            for _ in range(samples):
                await asyncio.sleep(random.uniform(*PAUSE))
                first, second = await one(here, paying, socket)
                accepted.append(first)
                seen.append(second)
                bars.advance(bar)
                bars.refresh()
    paying.close()
    return accepted, seen


async def one(here: Place, paying: Wire, socket: ClientConnection) -> tuple[float, float]:
    correlation_id = str(uuid.uuid4())
    body = json.dumps({"correlationId": correlation_id, "amount": 19.90}).encode()
    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        arrival = group.create_task(success(socket, correlation_id))
        status, said, took = await paying.ask("POST", "/payments", body, **here.headers)
        if status != 202:
            raise AssertionError(f"answered {status}: {said!r}")
    return took, 1000 * (arrival.result() - start)


async def success(socket: ClientConnection, correlation_id: str) -> float:
    """Time of the websocket message that this payment succeeded."""
    async with asyncio.timeout(LIMIT):
        while True:
            message = json.loads(await socket.recv())
            payment = message.get("payment", {})
            if payment.get("correlationId") == correlation_id and payment.get("status") == "succeeded":
                return time.perf_counter()
