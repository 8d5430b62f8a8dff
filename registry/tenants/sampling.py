"""Head sampling of traces: whether the trace of an object is recorded, by the rate of its tenant, the same in every process; and
the spans of requests and commits that make objects.

Each process reads the rates of tenants that have one of their own, again and again in the background, so that deciding waits for
nothing. Until it has read them for the first time it samples nothing.
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from django.conf import settings

from registry.data import database, db_breaker
from registry.data.loop import PerLoop, background
from registry.errors import Unavailable
from registry.telemetry import context, traces
from registry.telemetry.export import CLOSE_LIMIT, exporter
from registry.telemetry.traces import Id, Span

log = logging.getLogger(__name__)
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
            try:
                await _read()
                self.known.set()
            except Unavailable:  # the rates that were read last stay
                pass
            except Exception as error:  # such as a column that migrations have not made yet
                log.warning("the rates of tenants' traces cannot be read", extra={"error": repr(error)})
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


class TracedObject(NamedTuple):
    """What a trace is about."""

    kind: str  # such as payment
    tenant_id: int
    id: Id  # as the API names it

    @property
    def first(self) -> Span:
        """The first span of its trace."""
        return traces.first_span(*self)


def sampled(one: TracedObject) -> Span | None:
    """The first span of an object's trace; None if it is not sampled."""
    if not traces.on:
        return None
    loops.get()
    return one.first if traces.falls_within(rate_of(one.tenant_id), *one) else None


@traces.harmless
def enter(made: Iterable[tuple[TracedObject, bool]], *, of: TracedObject | None = None) -> None:
    """Put what a request makes into its context, each with whether it is new. The request's span is then the first one in the trace
    of each new object that is sampled. `of`: an object that they belong to, whose trace they link to."""
    spans = [span if new else span.child() for one, new in made if (span := sampled(one))]
    if spans and of and (above := sampled(of)):
        spans = [span._replace(links=(above.link,)) for span in spans]
    if spans:
        context.TRACED.set(tuple(spans))


@traces.harmless
def record_commit(name: str, stored: Iterable[TracedObject], *, rows: int, began: float) -> None:
    """Record a commit of `rows` rows in the trace of each object that it stored. `began`: time.perf_counter()."""
    firsts = [span for one in stored if (span := sampled(one))]
    attributes: dict[str, str | int] = {
        "db.system.name": "postgresql",
        "db.query.summary": name,
        "db.operation.batch.size": rows,
    }
    traces.record_shared(name, firsts, began=began, attributes=attributes)
