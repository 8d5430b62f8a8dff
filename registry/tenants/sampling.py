"""Head sampling of traces: whether the trace of an object is recorded, by the rate of its tenant, the same in every process.

Each process reads the rates of tenants that have one of their own, again and again in the background, so that deciding waits for
nothing. Until it has read them for the first time it samples nothing.
"""

import asyncio
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from django.conf import settings

from registry.data import database, db_breaker
from registry.data.loop import PerLoop, background
from registry.errors import Unavailable
from registry.telemetry import traces
from registry.telemetry.export import CLOSE_LIMIT, exporter
from registry.telemetry.traces import Span

SQL = database.statements(Path(__file__).parent / "sql" / "sampling.sql")

READ_EVERY = 5.0  # seconds between reads of the tenants' rates
START_LIMIT = 2.0  # seconds that a process waits for the first read


class _Rates:
    """The rates of tenants that have one of their own; None until they are known."""

    of: dict[int, float] | None = None


class Sampling:
    """The reader of rates of one event loop, and its share of the exporter."""

    def __init__(self) -> None:
        exporter.open()
        self.known = asyncio.Event()
        self._reading = background(self._read_on())

    async def _read_on(self) -> None:
        while True:
            with suppress(Unavailable):  # the rates that were read last stay
                await _read()
                self.known.set()
            await asyncio.sleep(READ_EVERY)

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await exporter.close()


async def _read() -> None:
    rows = await db_breaker.attempt(lambda: database.fetch(SQL["rates"]), writes=False)
    _Rates.of = dict(rows)


loops: PerLoop[Sampling] = PerLoop(Sampling, close=Sampling.close, within=CLOSE_LIMIT + 0.5)


async def start() -> None:
    """Load the SDK and read the rates before there is work. Processes that serve or drain call this; without tracing it does nothing."""
    if traces.on:
        with suppress(TimeoutError):
            async with asyncio.timeout(START_LIMIT):
                await loops.get().known.wait()


def rate_of(tenant_id: int) -> float:
    """The share of a tenant's traces that is recorded, from 0 to 1."""
    if _Rates.of is None:
        return 0.0
    return _Rates.of.get(tenant_id, settings.TRACE_SAMPLE_RATE)


def sampled(kind: str, tenant_id: int, id: UUID | int) -> Span | None:
    """The first span of an object's trace; None if it is not sampled. `kind`: such as payment; `id`: as the API knows it."""
    if not traces.on:
        return None
    loops.get()
    if not traces.falls_within(rate_of(tenant_id), kind, tenant_id, id):
        return None
    return traces.first_span(kind, tenant_id, id)
