"""The hub of live events: one Redis subscription per process, fanned out to websockets and long polls in order.

Redis delivers at most once and in any order. A tenant's events have numbers without gaps in commit order, so the hub detects
missing ones, reads them from PostgreSQL and delivers all in order. Without Redis it polls PostgreSQL every second.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Protocol

import msgspec

from registry.data import channels, db_breaker
from registry.data.loop import PerLoop
from registry.data.publisher import Publisher
from registry.errors import Unavailable
from registry.telemetry import metrics

GROUP = "live"
FILL_AFTER = 0.03  # seconds for a delayed message to arrive before the gap is read from PostgreSQL
TICK = 1.0  # seconds between polls of PostgreSQL, which find what Redis lost
MAILBOX = 1000  # events that a slow reader may be behind before it is disconnected
FILL_LIMIT = 500  # events per read of a gap


class Event(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """A numbered change. `body` is the JSON object that readers get."""

    stream: str  # name of the stream that numbers it
    tenant: int
    position: int  # within the stream and tenant; no gaps
    subject: str  # what changed, such as a payment's correlation id
    sequence: int  # within the subject
    body: bytes
    beside: dict[str, str] = {}  # what the socket says beside the object, for members only


class Change(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A numbered change before it is an Event: the stream makes one of `row`, in processes where somebody reads it."""

    stream: str
    tenant: int
    position: int
    row: msgspec.Raw  # MessagePack


class NumberedEvents(Protocol):
    """The part of registry.data.stream.EventStream by which a hub reads missed events, and those that are sent as changes."""

    @property
    def name(self) -> str: ...

    def event(self, row: msgspec.Raw, /) -> Event: ...

    def since(self, tenant: int, after: int, limit: int, /) -> Awaitable[list[Event]]: ...

    def positions(self, tenants: Sequence[int], /) -> Awaitable[dict[int, int]]: ...


type Key = tuple[str, int]  # a stream's name and a tenant


# -- Publishing ----------------------------------------------------------------------------------------

_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(list[Event | Change])


async def _send(events: list[Event | Change]) -> None:
    await channels.send(GROUP, _encoder.encode(events))


publishers: PerLoop[Publisher[Event | Change]] = PerLoop(lambda: Publisher(_send), close=Publisher.close)


def publish(events: Sequence[Event | Change]) -> None:
    """Send committed events to all processes. Never waits and never fails: it is a hint."""
    publishers.get().publish(events)


# -- Subscriptions -----------------------------------------------------------------------------------------


class TooSlow(Exception):
    """The reader fell more than MAILBOX events behind."""


class LiveSubscription:
    """A reader's mailbox for one tenant, or for some of its subjects."""

    def __init__(self, subjects: frozenset[str] | None) -> None:
        self.subjects = subjects
        self._events: deque[Event] = deque()
        self._arrived = asyncio.Event()
        self._overrun = False

    def wants(self, event: Event) -> bool:
        return self.subjects is None or event.subject in self.subjects

    def put(self, event: Event) -> None:
        if len(self._events) >= MAILBOX:
            self._overrun = True
        else:
            self._events.append(event)
        self._arrived.set()

    async def get(self) -> list[Event]:
        """Wait for events and return all that have arrived. Raises TooSlow."""
        await self._arrived.wait()
        if self._overrun:
            raise TooSlow
        self._arrived.clear()
        events = list(self._events)
        self._events.clear()
        return events


class Feed:
    """One tenant's events of a stream in order, for all readers of this process."""

    def __init__(self, stream: NumberedEvents, tenant: int, position: int) -> None:
        self.stream = stream
        self.tenant = tenant
        self.position = position
        self.streams: set[LiveSubscription] = set()
        self.by_subject: dict[str, set[LiveSubscription]] = {}
        self._early: dict[int, Event] = {}
        self._filling: asyncio.Task | None = None

    def add(self, subscription: LiveSubscription) -> None:
        for readers in self._readers(subscription):
            readers.add(subscription)

    def discard(self, subscription: LiveSubscription) -> None:
        for readers in self._readers(subscription):
            readers.discard(subscription)
        for subject in subscription.subjects or ():
            if not self.by_subject.get(subject, True):
                del self.by_subject[subject]

    def _readers(self, subscription: LiveSubscription) -> list[set[LiveSubscription]]:
        if subscription.subjects is None:
            return [self.streams]
        return [self.by_subject.setdefault(subject, set()) for subject in subscription.subjects]

    @property
    def unused(self) -> bool:
        return not self.streams and not self.by_subject

    def offer(self, event: Event) -> None:
        if event.position > self.position:
            self._early[event.position] = event
            self._advance()

    def _advance(self) -> None:
        while event := self._early.pop(self.position + 1, None):
            self.position += 1
            self._deliver(event)
        if self._early and self._filling is None:
            self.fill(after=FILL_AFTER)

    def _deliver(self, event: Event) -> None:
        for subscription in (*self.streams, *self.by_subject.get(event.subject, ())):
            subscription.put(event)

    def fill(self, *, after: float = 0) -> None:
        """Read missing events from PostgreSQL, once for all readers."""
        if self._filling is None:
            self._filling = asyncio.get_running_loop().create_task(self._fill(after))

    async def _fill(self, after: float) -> None:
        try:
            await asyncio.sleep(after)
            if after and not self._early:
                return  # the message was only delayed
            full = True
            while full:
                found = await self.stream.since(self.tenant, self.position, FILL_LIMIT)
                full = len(found) == FILL_LIMIT
                for event in found:
                    if event.position > self.position:  # a missing number was purged
                        self.position = event.position
                        self._deliver(event)
                self._early = {p: event for p, event in self._early.items() if p > self.position}
        except Unavailable:
            pass  # the next poll tries again
        finally:
            self._filling = None
            if self.position + 1 in self._early:
                self._advance()

    def close(self) -> None:
        if self._filling:
            self._filling.cancel()


class Hub:
    """All feeds of this process and their one Redis subscription, which begins with the first reader."""

    def __init__(self) -> None:
        self.feeds: dict[Key, Feed] = {}
        self._tasks: list[asyncio.Task] = []
        self._opening: dict[Key, asyncio.Task[None]] = {}  # feeds whose position is being read

    @asynccontextmanager
    async def subscribe(
        self, stream: NumberedEvents, tenant: int, subjects: frozenset[str] | None = None
    ) -> AsyncIterator[LiveSubscription]:
        """Subscribe to what is committed from now on, of the tenant or of these subjects. Read earlier events after entering."""
        feed = await self._feed(stream, tenant)
        subscription = LiveSubscription(subjects)
        feed.add(subscription)
        metrics.LIVE_SOCKETS.inc()
        try:
            yield subscription
        finally:
            metrics.LIVE_SOCKETS.dec()
            feed.discard(subscription)
            self._drop_unused((stream.name, tenant))

    async def _feed(self, stream: NumberedEvents, tenant: int) -> Feed:
        """The tenant's feed of a stream, opened by the first reader. A slow database delays the readers of this tenant only."""
        loop, key = asyncio.get_running_loop(), (stream.name, tenant)
        if not self._tasks:
            self._tasks = [loop.create_task(channels.listen(GROUP, self._receive)), loop.create_task(self._tick())]
        # Check again after each wait: another reader may have opened and closed the feed meanwhile.
        while (feed := self.feeds.get(key)) is None:
            opening = self._opening.get(key)
            if opening is None:
                opening = self._opening[key] = loop.create_task(self._open(stream, tenant))
                # Retrieve the error: no reader may be waiting.
                opening.add_done_callback(lambda done: done.cancelled() or done.exception())
            try:
                await asyncio.shield(opening)  # a cancelled reader does not cancel it for others
            except asyncio.CancelledError:
                self._drop_unused(key)
                raise
        return feed

    async def _open(self, stream: NumberedEvents, tenant: int) -> None:
        try:
            position = (await db_breaker.attempt(lambda: stream.positions([tenant]), writes=False)).get(tenant, 0)
            self.feeds[stream.name, tenant] = Feed(stream, tenant, position)
        finally:
            del self._opening[stream.name, tenant]

    def _receive(self, data: bytes) -> None:
        if self.feeds:
            for event in _decoder.decode(data):
                if feed := self.feeds.get((event.stream, event.tenant)):
                    feed.offer(event if isinstance(event, Event) else feed.stream.event(event.row))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            with suppress(Unavailable):
                for key in list(self.feeds):  # feeds whose readers all left before they were open
                    self._drop_unused(key)
                for stream in {feed.stream.name: feed.stream for feed in self.feeds.values()}.values():
                    await self._compare(stream)

    async def _compare(self, stream: NumberedEvents) -> None:
        """Fill the feeds of a stream that have missed events."""
        tenants = [tenant for name, tenant in self.feeds if name == stream.name]
        for tenant, position in (await stream.positions(tenants)).items():
            if (feed := self.feeds.get((stream.name, tenant))) and position > feed.position:
                feed.fill()

    def _drop_unused(self, key: Key) -> None:
        if (feed := self.feeds.get(key)) and feed.unused:
            self.feeds.pop(key).close()

    async def close(self) -> None:
        tasks = [*self._tasks, *self._opening.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for feed in self.feeds.values():
            feed.close()


hubs: PerLoop[Hub] = PerLoop(Hub, close=Hub.close)
hub = hubs.get
