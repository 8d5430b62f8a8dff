"""Export of spans: OTLP over HTTP, from a thread of the SDK with a bounded queue. Nothing here waits for the receiver.

The SDK is imported when the exporter opens, so that a process that records no span never loads it.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

from registry.telemetry import metrics

if TYPE_CHECKING:
    from registry.telemetry.sdk import Writer

log = logging.getLogger(__name__)

QUEUE = 2048  # spans that wait to be sent; further ones are dropped
BATCH = 512  # spans of one request
EVERY = 5.0  # seconds between requests; each costs as much processor time as a hundred spans
EXPORT_LIMIT = 5.0  # seconds for one request, repetitions included
WARN_EVERY = 60.0  # seconds between lines about a receiver that does not accept spans
CLOSE_LIMIT = 2.0  # seconds to send what waits when the process ends; less than the end of a loop gives a resource

type Attributes = Mapping[str, str | int | float | bool]
type Link = tuple[int, int]  # trace id, span id
type Event = tuple[str, int, Attributes]  # name, nanoseconds since 1970, attributes
type Kind = Literal["internal", "server", "client", "producer", "consumer"]


class Recorded(NamedTuple):
    """A span that has ended."""

    name: str
    trace_id: int
    span_id: int
    parent: int  # 0: none
    start: int  # nanoseconds since 1970
    end: int
    kind: Kind
    attributes: Attributes
    links: Sequence[Link]
    events: Sequence[Event]


class _Pending:
    """Spans of one writer that are queued: counted by the threads that add them, and by the one that sends them."""

    def __init__(self) -> None:
        self._added = self._left = 0
        self._warn_at = 0.0  # time.monotonic()

    @property
    def count(self) -> int:
        return self._added - self._left

    def add(self) -> None:
        self._added += 1

    def after_request(self, spans: int, accepted: bool) -> None:
        self._left += spans
        metrics.TRACE_SPANS.labels("sent" if accepted else "refused").inc(spans)
        if not accepted and (now := time.monotonic()) >= self._warn_at:
            self._warn_at = now + WARN_EVERY
            log.warning("the receiver of traces does not accept spans; they are lost", extra={"spans": spans})


class SpanExport:
    """The exporter of a process. The first loop that samples opens it, the last one closes it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._writer: Writer | None = None
        self._pending = _Pending()

    def open(self) -> None:
        """Load the SDK and start its thread. It takes some tenths of a second: call it before there is work."""
        from registry.telemetry.sdk import Writer

        with self._lock:
            self._users += 1
            if self._writer is None:
                self._pending = _Pending()
                self._writer = Writer(self._pending.after_request)

    async def close(self) -> None:
        """Send what waits, within CLOSE_LIMIT, unless another loop uses it."""
        with self._lock:
            self._users -= 1
            if self._users or self._writer is None:
                return
            writer, self._writer, pending = self._writer, None, self._pending
        sent, loop = asyncio.Event(), asyncio.get_running_loop()

        def shut_down() -> None:
            writer.shut_down()
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(sent.set)

        # No thread of the loop's executor: the end of the loop would wait for it.
        threading.Thread(target=shut_down, name="traces", daemon=True).start()
        try:
            async with asyncio.timeout(CLOSE_LIMIT):
                await sent.wait()
        except TimeoutError:
            writer.abandon()
            if lost := pending.count:
                metrics.TRACE_SPANS.labels("lost at the end").inc(lost)
                log.warning("spans were lost: their receiver did not take them in time", extra={"spans": lost})

    def add(self, one: Recorded) -> None:
        """Queue a span. It is dropped and counted while QUEUE of them wait, and where nothing is open."""
        with self._lock:
            if self._writer is None or self._pending.count >= QUEUE:
                metrics.TRACE_SPANS.labels("queue full" if self._writer else "closed").inc()
                return
            self._pending.add()
            self._writer.write(one)


exporter = SpanExport()
add = exporter.add
