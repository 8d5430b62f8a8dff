"""Numbered event streams with resume. Websockets and long polls read every stream by the same rules; docs/decisions/028.

A stream numbers the events of one source per tenant, without gaps and in commit order. A reader subscribes first, then reads
from PostgreSQL what is above its number, then gets what the hub delivers above that: each event once and in order.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from uuid import UUID

import msgspec

from registry.data import live
from registry.data.live import Event, LiveSubscription


@dataclass(kw_only=True)
class EventStream:
    """The numbered events of one source. The app that owns the events makes one."""

    name: str
    since: Callable[[int, int, int], Awaitable[list[Event]]]  # (tenant, after, limit) → events in order of position
    of_subject: Callable[[int, UUID, int], Awaitable[list[Event]]]  # (tenant, subject, after) → in order of sequence
    positions: Callable[[Sequence[int]], Awaitable[dict[int, int]]]  # tenants → the numbers of their latest events
    event: Callable[[msgspec.Raw], Event] = msgspec.msgpack.Decoder(Event).decode  # of the row of a `live.Change`

    def follow(self, tenant: int, *subjects: UUID | str) -> AbstractAsyncContextManager[LiveSubscription]:
        """Subscribe to what is committed from now on: of these subjects, or of the whole tenant."""
        return live.hub().subscribe(self, tenant, frozenset(map(str, subjects)) or None)

    async def after(
        self, tenant: int, subject: UUID, after: int, *, within: float, check: Callable[[], Awaitable[None]]
    ) -> list[Event]:
        """Long poll: wait up to `within` seconds for the subject's events above a sequence; none after that.

        `check` raises for a subject that does not exist; it is called when no event is there yet.
        """
        async with self.follow(tenant, subject) as subscription:
            if found := await self.of_subject(tenant, subject, after):
                return found
            await check()
            try:
                async with asyncio.timeout(within):
                    return [event for event in await subscription.get() if event.sequence > after]
            except TimeoutError:
                return []


class Reader:
    """One reader's position in a stream. Live events and a resume run concurrently; each event is sent once, in order."""

    def __init__(
        self,
        *,
        number: Callable[[Event], int],  # the number that this reader counts by: position or sequence
        past: Callable[[int], Awaitable[list[Event]]],  # the next events above a number; none when there are no more
        send: Callable[[Event], Awaitable[None]],
    ) -> None:
        self.sent = 0  # number of the latest event that was sent
        self.only: frozenset[str] | None = None  # subjects to send; None: all
        self._number, self._past, self._send = number, past, send
        self._skipped: int | None = None  # during a resume: the latest live event that was left to it

    async def offer(self, event: Event) -> None:
        """Send a live event, unless it was sent before or a resume will read it."""
        number = self._number(event)
        if self._skipped is not None:
            self._skipped = max(self._skipped, number)
        elif number > self.sent:
            await self._pass_on(event)

    async def resume(self, after: int, *, started: Callable[[], None]) -> None:
        """Send everything above `after`, also what is committed meanwhile. `started`: live events are left to this now."""
        self._skipped = 0
        started()
        try:
            while True:
                before, found = self._skipped, await self._past(after)
                if not found and self._skipped == before:
                    return
                for event in found:
                    await self._pass_on(event)
                    after = self._number(event)
        finally:
            self._skipped = None

    async def _pass_on(self, event: Event) -> None:
        if self.only is None or event.subject in self.only:
            self.sent = self._number(event)
            await self._send(event)
