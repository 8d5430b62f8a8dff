"""Work: an abstract kind of work, which is claimed, done and settled in batches. `Drain`, `Inline` and `run_until_idle` run it.

A row is claimed under a lease (`lease_id` is the Worker row, `leased_until` its end) and an attempt number. Settling names both
(the fence), so that a worker that lost its lease changes nothing any more.
"""

import asyncio
import logging
import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, ClassVar, NamedTuple, Protocol
from uuid import UUID

from psycopg import AsyncConnection

from queueing.work.table import WorkTable
from registry.data import database
from registry.data.batching import Batcher
from registry.data.database import Row
from registry.errors import Unavailable

log = logging.getLogger(__name__)

DUE_FRESH = 0.2  # seconds for which the shares with due rows are remembered
DUE_AT_MOST = 1000  # of them: several claims' worth
WORTH_A_CLAIM = 50  # rows that a full share may have again, before anything is claimed for them
WRITE_AGAIN = 0.25  # seconds before outcomes that the database did not take are written again

type Key = tuple[int, int]  # tenant id, row id
type Name = tuple[int, UUID]  # tenant id, public id


class Keyed(Protocol):
    """A claimed row, or an outcome of one."""

    @property
    def key(self) -> Key: ...


class Routed[I](NamedTuple):
    """Locked rows: items to be done now, and what is postponed."""

    items: Sequence[I]
    postponed: Sequence[Any] = ()


class Work[I: Keyed, O: Keyed](ABC):
    """A kind of work. One per worker process and event loop.

    A claim is divided equally between shares, which are tenants unless a kind says otherwise. Rows are done in groups, one
    task each.
    """

    table: ClassVar[WorkTable]
    lease: ClassVar[float] = 30.0  # seconds; longer than a group takes, and than any pause of ours
    looks: ClassVar[int] = 1  # takes of one claim, while all rows that it finds are postponed
    in_transaction: ClassVar[bool] = True  # False: `take` writes the leases itself
    settle_rows: ClassVar[int] = 200  # outcomes per commit
    settle_linger: ClassVar[float] = 0.015  # seconds between commits of outcomes
    write_again: ClassVar[tuple[type[Exception], ...]] = (Unavailable,)
    capacity: int = 400  # rows in flight: rate × delay must fit (550/s at 0.5 s is 275)
    room: int = 300  # of these for one share, so that a slow one leaves room for the others

    def __init__(self) -> None:
        self.worker_id = 0
        self.wake: Callable[[], None] = lambda: None  # the drain puts its own here
        self.held = 0  # rows claimed and not done with
        self.in_hand: Counter[int] = Counter()  # the same by share
        self.outcomes: Batcher[O, Row | None] = Batcher(
            self._settle, max_rows=self.settle_rows, linger=self.settle_linger
        )
        self._due: list[int] = []  # shares with due rows
        self._due_until = -math.inf  # time.monotonic() until which they are remembered

    # -- Claiming ----------------------------------------------------------------------------------------------

    async def claim(self, worker_id: int, limit: int) -> list[I]:
        """Lease up to `limit` due rows. Raises Unavailable."""
        self.worker_id = worker_id
        return await database.guarded(lambda: self._claim(limit))

    async def claim_named(self, worker_id: int, names: Sequence[Name]) -> dict[Name, I | None]:
        """Lease rows by name, where they are due and in nobody's hands; None for one that cannot be done now. Raises Unavailable."""
        self.worker_id = worker_id
        found: dict[Name, Row] = {}

        async def take(conn: AsyncConnection, items: list[I]) -> None:
            found.update(await self.named(conn, names))
            rows = list(found.values())
            await self.prepare(conn, rows)
            self._count(items, self.route(rows).items)

        by_key = {item.key: item for item in await database.guarded(lambda: self._leased(take))}
        return {name: by_key.get((row[0], row[1])) for name, row in found.items()}

    def look_anew(self) -> None:
        """Forget which shares have due rows: the next claim asks."""
        self._due_until = -math.inf

    async def _claim(self, limit: int) -> list[I]:
        rooms = self.rooms(limit)
        remembered = time.monotonic() < self._due_until and bool(self._quotas(limit, rooms))
        if not remembered:
            self._due_until = time.monotonic() + DUE_FRESH  # before the statement: a hint that comes meanwhile ends it
            self._due = await self.due()
        if not self._quotas(limit, rooms) and not self.claims_also():
            return []  # a look that finds nothing is one statement
        items = await self._leased(lambda conn, items: self._take_due(conn, limit, rooms, items))
        if remembered and not items:
            self.wake()  # other shares may have due rows
        return items

    async def _leased(self, take: Callable[[AsyncConnection, list[I]], Awaitable[None]]) -> list[I]:
        items: list[I] = []  # `take` appends to it what it counts
        opened = database.transaction if self.in_transaction else database.connection
        try:
            async with opened() as conn:
                await take(conn, items)
                begun = await self.begin(conn, items) if items else []
        except BaseException:
            self.released(items)
            raise
        self.begun(items, begun)
        return items

    async def _take_due(self, conn: AsyncConnection, limit: int, rooms: dict[int, int], items: list[I]) -> None:
        self._count(items, await self.claim_also(conn, limit))
        taken = {item.key for item in items}
        for look in range(1, self.looks + 1):
            quotas = self._quotas(limit - len(items), rooms if look == 1 else self.rooms(limit))
            rows = await self.take(conn, quotas) if quotas else []
            self._remember(quotas, len(rows))
            if taken:  # rows that this transaction has locked already are not skipped
                rows = [row for row in rows if (row[0], row[1]) not in taken]
            if not rows or await self._route(conn, rows, look, items):
                return

    def _quotas(self, limit: int, rooms: dict[int, int]) -> dict[int, int]:
        """Rows of a claim of `limit` for each share with due rows and room."""
        shares = [share for share in self._due if rooms.get(share, self.room) > 0][:limit]
        if not shares:
            return {}
        each, more = divmod(limit, len(shares))
        return {share: min(each + (n < more), rooms.get(share, self.room)) for n, share in enumerate(shares)}

    def _remember(self, quotas: dict[int, int], found: int) -> None:
        if found < sum(quotas.values()):
            self.look_anew()
        elif len(self._due) > len(quotas):  # the others' turn is next
            self._due = [share for share in self._due if share not in quotas] + list(quotas)

    async def _route(self, conn: AsyncConnection, rows: Sequence[Row], look: int, items: list[I]) -> bool:
        """Whether anything of `rows` can be done now; the rest is postponed."""
        await self.prepare(conn, rows)
        routed = self.route(rows)
        self._count(items, routed.items)
        if routed.postponed:
            await self.postpone(conn, routed.postponed, look)
        return bool(routed.items)

    def _count(self, items: list[I], more: Iterable[I]) -> None:
        for item in more:
            items.append(item)
            self.held += 1
            self.in_hand[self.share_of(item)] += 1

    # -- Doing and settling ------------------------------------------------------------------------------------

    async def run(self, items: Sequence[I]) -> list[bool]:
        """Do one group and settle it; which rows are done for good."""
        try:
            act = self.resolve if self.in_doubt(items[0]) else self.send
            ended = await self._written(await act(items))
        finally:
            self.released(items)
        return [self.is_done(outcome, row is not None) for outcome, row in ended]

    async def write(self, outcomes: Sequence[O]) -> list[bool]:
        """Settle, for as long as it takes to be written; False where somebody else has taken the row over."""
        return [row is not None for _, row in await self._written(outcomes)]

    async def write_once(self, outcomes: Sequence[O]) -> None:
        """Settle, if the database takes it now."""
        for outcome in outcomes:
            self.outcomes.submit(outcome)
        await self.outcomes.finish()

    async def leave(self, items: Sequence[I]) -> None:
        """Finish the batches, then give back rows that were begun and not finished; if it cannot be written, their leases lapse."""
        with suppress(Unavailable):
            await self.finish()
            if items:
                await self.give_back(items)

    async def close(self) -> None:
        """Finish the batches, then close everything that was opened."""
        await self.finish()

    async def _written(self, outcomes: Sequence[O]) -> list[tuple[O, Row | None]]:
        if len(outcomes) == 1:
            return [await self._write(outcomes[0])]
        return await asyncio.gather(*map(self._write, outcomes))

    async def _write(self, outcome: O) -> tuple[O, Row | None]:
        while True:
            try:
                return outcome, await self.submit(outcome)
            except Exception as error:
                outcome = await self.instead(outcome, error)

    async def _settle(self, batch: Sequence[O]) -> list[Row | None]:
        rows = {(row[0], row[1]): row for row in await self.settle(batch)}
        settled = [rows.get(outcome.key) for outcome in batch]
        try:
            await self.settled([(outcome, row) for outcome, row in zip(batch, settled, strict=True) if row is not None])
        except Exception:
            log.exception("what follows from settled rows failed")
        return settled

    # -- What a kind says of claiming: rows begin with tenant id and id -----------------------------------------

    def share_of(self, item: I) -> int:
        """Whose room it uses."""
        return item.key[0]

    def rooms(self, limit: int) -> dict[int, int]:
        """How many more rows some shares may have in flight, before a claim of `limit`; those not named may have `room`."""
        return {share: self.room - held for share, held in self.in_hand.items()}

    async def due(self) -> list[int]:
        """Shares that have due rows, in random order."""
        return [share for (share,) in await database.fetch(self.table.due, {"limit": DUE_AT_MOST}, repeatable=False)]

    def claims_also(self) -> bool:
        """Whether `claim_also` has to be asked when nothing is due."""
        return False

    async def claim_also(self, conn: AsyncConnection, limit: int) -> Sequence[I]:
        """Items of rows that are claimed before those that are due. They are locked, and take places."""
        return []

    async def take(self, conn: AsyncConnection, quotas: dict[int, int]) -> list[Row]:
        """Lock due rows of these shares."""
        parameters = {"tenants": list(quotas), "quotas": list(quotas.values())}
        return await database.rows(conn, self.table.take, parameters)

    async def named(self, conn: AsyncConnection, names: Sequence[Name]) -> dict[Name, Row]:
        """Lock rows by name, where they are due and in nobody's hands. For `Inline`."""
        raise NotImplementedError

    async def prepare(self, conn: AsyncConnection, rows: Sequence[Row]) -> None:  # noqa: B027 - a hook, as others below
        """Read what `route` needs to know."""

    @abstractmethod
    def route(self, rows: Sequence[Row]) -> Routed[I]:
        """Items of locked rows, which take places, and rows that cannot be done now."""

    async def postpone(self, conn: AsyncConnection, postponed: Sequence[Any], look: int) -> None:
        """Make those rows due later, so that they hide nothing."""
        raise NotImplementedError

    async def begin(self, conn: AsyncConnection, items: Sequence[I]) -> list[Row]:
        """Write attempts and leases, in ONE statement, before anything is sent."""
        return []

    def begun(self, items: Sequence[I], rows: Sequence[Row]) -> None:  # noqa: B027
        """After that commit, with what `begin` returned: live messages."""

    def released(self, items: Sequence[I]) -> None:
        """Their places are free: after a run, or when their claim failed."""
        self.held -= len(items)
        for item in items:
            share = self.share_of(item)
            self.in_hand[share] -= 1
            held = self.in_hand[share]
            if not held:
                del self.in_hand[share]
            elif held == self.room - WORTH_A_CLAIM:
                self.wake()  # its room was full, so the last claim may have left rows of it alone

    # -- What a kind says of doing and settling -------------------------------------------------------------------

    def groups(self, items: Sequence[I]) -> Sequence[Sequence[I]]:
        """Items that are done together; those in doubt are not mixed with others."""
        return [(item,) for item in items]

    def in_doubt(self, item: I) -> bool:
        """Whether an earlier send may have gone through."""
        return False

    @abstractmethod
    async def send(self, items: Sequence[I]) -> Sequence[O]:
        """Act on the outside; one outcome per item. Raises nothing that others may cause."""

    async def resolve(self, items: Sequence[I]) -> Sequence[O]:
        """Find out what became of earlier sends, before anything is sent again; one outcome per item."""
        raise NotImplementedError

    @abstractmethod
    async def settle(self, outcomes: Sequence[O]) -> list[Row]:
        """Write outcomes in one commit, fenced by worker and attempt; the rows that were still ours."""

    async def settled(self, written: Sequence[tuple[O, Row]]) -> None:  # noqa: B027
        """After that commit, with what `settle` returned: live messages, metrics, wakes. Errors are logged."""

    async def submit(self, outcome: O) -> Row | None:
        """Add it to a batch and wait for its commit; what `settle` returned for it."""
        return await self.outcomes.submit(outcome)

    async def instead(self, outcome: O, error: Exception) -> O:
        """What is written in place of an outcome whose write failed: the same, until the database takes it."""
        if not isinstance(error, self.write_again):
            raise error
        await asyncio.sleep(WRITE_AGAIN)
        return outcome

    @abstractmethod
    def is_done(self, outcome: O, written: bool) -> bool:
        """Whether the row is done for good (Worker.finished, .failed)."""

    @abstractmethod
    async def give_back(self, items: Sequence[I]) -> None:
        """Write down, fenced, that rows were begun and not finished."""

    async def finish(self) -> None:
        """Wait until all outcomes so far are written."""
        await self.outcomes.finish()

    def background(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """Loops that run beside."""
        return ()
