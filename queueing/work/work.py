"""Work: rows that are claimed, done outside the database, and settled in batches. This is the base class of every kind of work.

The terms, in the order in which a row meets them:

- **share**: the rows of one tenant (deliveries: of one endpoint; jobs: a tenant's of one kind). A claim is divided equally between the shares with due rows,
  and a share has at most `share_limit` rows in flight, so that a large or slow one leaves capacity to the others.
- **claim**: lock due rows, decide which can be done now, and write their attempts and leases. Committed before anything is sent.
  It reads no rows below the **floor** (shares.py), which are leased.
- **lease**: the worker (`lease_id`, its Worker row) may work on the row until `leased_until`. If it dies, another worker claims the row then.
- **attempt**: a number that each claim raises. It is the **fence**: an outcome names its attempt and its worker, so a worker
  whose row was claimed by another one changes nothing.
- **postpone**: make a locked row that cannot be done now due later, so that it hides no rows behind it.
- **in doubt**: an earlier send may have succeeded. It is looked up (`resolve`) before anything is sent again (`send`).
- **settle**: write the outcomes of many rows with one commit (a **batch**).
- **give back**: a worker that stops writes what it leaves unfinished, so that others need not wait for the leases to end.

`Drain` runs any work in a worker, `Inline` in a web process, `run_until_idle` in tests. A subclass says how its rows are read, sent and written.

To add a kind: (1) a model with `WorkRow`, `closed_in` and `open_rows` (queueing/models/work.py); (2) in its package's `work.py` a
registered `WorkTable` and a subclass of `Work` with `@entry.register("queue")`; (3) the module's name in the app's `apps.py`;
(4) `waking.wake("queue")` after each commit that adds rows. Workers, health, metrics and scaling find it by its name.
"""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, NamedTuple

from psycopg import AsyncConnection

from queueing.work.keyed import Keyed, PublicId
from queueing.work.pools import Division
from queueing.work.shares import DueShares, Share
from queueing.work.tracing import TracedWork
from registry.data import database
from registry.data.batching import Batcher
from registry.data.database import Row
from registry.errors import Unavailable
from registry.telemetry import changes

log = logging.getLogger(__name__)

WORTH_A_CLAIM = 50  # free rows that start a claim for a share that was at its limit
WRITE_AGAIN = 0.25  # seconds until outcomes are written again that the database did not accept


class Routed[I](NamedTuple):
    """Locked rows, divided into items that are done now and rows that are postponed."""

    items: Sequence[I]
    postponed: Sequence[Any] = ()


class Work[I: Keyed, O: Keyed](TracedWork[I, O], ABC):
    """One kind of work, with items I (claimed rows) and outcomes O. One instance per worker process and event loop.

    Down to `write_once` it is the mechanism, called by those that run work. All other methods are hooks, which a kind overrides.
    """

    lease: ClassVar[float] = 30.0  # seconds; longer than a group takes, and than a process may be suspended
    rounds: ClassVar[int] = 1  # times that a claim takes rows, for as long as all of them have to be postponed
    in_transaction: ClassVar[bool] = True  # False: `take` is one statement that also writes the leases
    settle_rows: ClassVar[int] = 200  # outcomes per commit
    settle_linger: ClassVar[float] = 0.015  # seconds between commits of outcomes
    write_again: ClassVar[tuple[type[Exception], ...]] = (Unavailable,)  # errors after which outcomes are written again
    capacity: int = 400  # rows in flight: rate × delay must fit (550/s at 0.5 s is 275)
    share_limit: int = 300  # rows of one share in flight

    def __init__(self) -> None:
        super().__init__()
        self.worker_id = 0
        self.wake: Callable[[], None] = lambda: None  # makes the drain claim now; the drain sets it
        self.in_flight = 0  # rows claimed and not settled
        self.in_flight_of: Counter[Share] = Counter()  # the same by share
        self.outcomes: Batcher[O, Row | None] = Batcher(
            self._settle, max_rows=self.settle_rows, linger=self.settle_linger
        )
        self.shares = DueShares()
        self.division = Division()  # what this worker's pool takes; the drain sets it

    # -- Claiming ----------------------------------------------------------------------------------------------

    async def claim(self, worker_id: int, limit: int) -> list[I]:
        """Lease up to `limit` due rows. Raises Unavailable."""
        self.worker_id = worker_id
        return await database.faults_as_unavailable(lambda: self._claim(limit))

    async def claim_by_id(self, worker_id: int, ids: Sequence[PublicId]) -> dict[PublicId, I | None]:
        """Lease these rows. Rows that are not due or leased already are left out; None: cannot be done now. Raises Unavailable."""
        self.worker_id = worker_id
        locked: dict[PublicId, Row] = {}

        async def take(conn: AsyncConnection, items: list[I]) -> None:
            locked.update(await self.take_by_id(conn, ids))
            await self.prepare(conn, rows := list(locked.values()))
            self._add(items, self.route(rows).items)

        async def claim() -> list[I]:
            async with database.connection() as conn:
                return await self._lease(conn, take)

        by_key = {item.key: item for item in await database.faults_as_unavailable(claim)}
        return {id: by_key.get((row[0], row[1])) for id, row in locked.items()}

    async def _claim(self, limit: int) -> list[I]:
        free = self.free_by_share(limit)
        async with database.connection() as conn:
            await self.shares.look(lambda: self.due(conn))
            remembered = self.shares.fresh and bool(self.shares.quotas(limit, free, self.share_limit))
            if not remembered:
                await self.shares.read(self.due(conn))
            if not self.shares.quotas(limit, free, self.share_limit) and not self.claims_first():
                return []  # if nothing is due, a claim costs one statement
            items = await self._lease(conn, lambda conn, items: self._take_due(conn, limit, free, items))
        if remembered and not items:  # shares outside the list may have due rows
            self.shares.forget()
            self.wake()
        return items

    async def _lease(
        self, conn: AsyncConnection, take: Callable[[AsyncConnection, list[I]], Awaitable[None]]
    ) -> list[I]:
        """Commit the leases of the items that `take` adds to the list which it is given."""
        items: list[I] = []
        began = time.perf_counter()
        try:
            async with conn.transaction() if self.in_transaction else nullcontext():
                await take(conn, items)
                begun = await self.begin(conn, items) if items else []
        except BaseException:
            self.release(items)
            self.shares.lower()
            raise
        try:
            changes.record(self.after_begin(items, begun))
            self.trace_claim(items, began)
        except Exception:
            log.exception("messages of claimed rows failed")
        return items

    async def _take_due(self, conn: AsyncConnection, limit: int, free: dict[Share, int], items: list[I]) -> None:
        self._add(items, await self.claim_first(conn, limit))
        taken = {item.key for item in items}
        for number in range(1, self.rounds + 1):
            free = free if number == 1 else self.free_by_share(limit)
            quotas = self.shares.quotas(limit - len(items), free, self.share_limit)
            rows = await self.take(conn, quotas) if quotas else []
            self.shares.after_take(quotas, map(self.table.share, rows))
            if taken:  # SKIP LOCKED does not skip rows that this transaction itself has locked
                rows = [row for row in rows if (row[0], row[1]) not in taken]
            if not rows or await self._route(conn, rows, number, items):
                return

    async def _route(self, conn: AsyncConnection, rows: Sequence[Row], number: int, items: list[I]) -> bool:
        """Add the items to `items` and postpone the other rows. Returns whether there were items."""
        await self.prepare(conn, rows)
        routed = self.route(rows)
        self._add(items, routed.items)
        if routed.postponed:
            await self.postpone(conn, routed.postponed, number)
        return bool(routed.items)

    def _add(self, items: list[I], more: Iterable[I]) -> None:
        for item in more:
            self.in_flight_of[self.share_of(item)] += 1
            self.in_flight += 1
            items.append(item)

    # -- Doing and settling ------------------------------------------------------------------------------------

    async def run(self, items: Sequence[I]) -> list[bool]:
        """Do one group and settle it. Returns for each row whether it is finished (`is_done`)."""
        try:
            act = self.resolve if self.in_doubt(items[0]) else self.send
            settled = await self._write(await (self.act_traced(act, items) if self.traced else act(items)))
        finally:
            self.release(items)
        return [self.is_done(outcome, row is not None) for outcome, row in settled]

    async def write(self, outcomes: Sequence[O]) -> list[bool]:
        """Settle, and try again until the database accepts it. Returns False where another worker has claimed the row."""
        return [row is not None for _, row in await self._write(outcomes)]

    async def write_once(self, outcomes: Sequence[O]) -> None:
        """Settle if the database is available; if not, nothing is written."""
        for outcome in outcomes:
            self.outcomes.submit(outcome)
        await self.outcomes.finish()

    async def _write(self, outcomes: Sequence[O]) -> list[tuple[O, Row | None]]:
        if len(outcomes) == 1:
            return [await self._write_one(outcomes[0])]
        return await asyncio.gather(*map(self._write_one, outcomes))

    async def _write_one(self, outcome: O) -> tuple[O, Row | None]:
        while True:
            try:
                return outcome, await self.submit(outcome)
            except Exception as error:
                outcome = await self.after_failed_write(outcome, error)

    async def _settle(self, batch: Sequence[O]) -> list[Row | None]:
        began = time.perf_counter()
        rows = {(row[0], row[1]): row for row in await self.settle(batch)}
        if self.traced:
            self.trace_commit(rows, len(batch), began)
        settled = [rows.get(outcome.key) for outcome in batch]
        await self.tell([(outcome, row) for outcome, row in zip(batch, settled, strict=True) if row is not None])
        return settled

    async def tell(self, written: Sequence[tuple[O, Row]]) -> None:
        """Log these outcomes, which are committed, and call `after_settle`. Errors are logged."""
        try:
            changes.record(self.changed(outcome, row) for outcome, row in written)
            await self.after_settle(written)
        except Exception:
            log.exception("messages or metrics of settled rows failed")

    # -- Hooks: shares and claims. Rows begin with tenant id and row id ------------------------------------------

    def share_of(self, item: I) -> Share:
        """The share that an item counts for: its tenant."""
        return item.key[0]

    def free_by_share(self, limit: int) -> dict[Share, int]:
        """How many more rows of a share may be claimed now, for a claim of `limit`. Shares that are not in it: `share_limit`."""
        return {share: self.share_limit - count for share, count in self.in_flight_of.items()}

    async def due(self, conn: AsyncConnection) -> list[Share]:
        """Shares with due rows, as `shares.asked` has it, in random order."""
        return [share for (share,) in await database.rows(conn, self.table.due, self.shares.asked)]

    def claims_first(self) -> bool:
        """Whether `claim_first` has to be called even if nothing is due."""
        return False

    async def claim_first(self, conn: AsyncConnection, limit: int) -> Sequence[I]:
        """Lock rows that go before all due ones, and return their items."""
        return []

    async def take(self, conn: AsyncConnection, quotas: dict[Share, int]) -> list[Row]:
        """Lock due rows that are not below `shares.above`: at most `quotas[share]` of each share."""
        parameters = {"tenants": list(quotas), "quotas": list(quotas.values()), "above": self.shares.above}
        return await database.rows(conn, self.table.take, parameters)

    async def take_by_id(self, conn: AsyncConnection, ids: Sequence[PublicId]) -> dict[PublicId, Row]:
        """Lock those of these rows that are due and not leased. Only for work that runs inline."""
        raise NotImplementedError

    async def prepare(self, conn: AsyncConnection, rows: Sequence[Row]) -> None:
        """Read what `route` needs to know of these rows."""

    @abstractmethod
    def route(self, rows: Sequence[Row]) -> Routed[I]:
        """Divide locked rows into items, which are in flight from now on, and rows to postpone."""

    async def postpone(self, conn: AsyncConnection, postponed: Sequence[Any], number: int) -> None:
        """Make these rows due later. `number`: the round of the claim, from 1."""
        raise NotImplementedError

    async def begin(self, conn: AsyncConnection, items: Sequence[I]) -> list[Row]:
        """Write attempts and leases in ONE statement."""
        return []

    def after_begin(self, items: Sequence[I], rows: Sequence[Row]) -> Iterable[changes.ChangeLine]:
        """Called after that commit, with the rows of `begin`: live messages. Returns changes of state for the log. Errors are logged."""
        return ()

    def release(self, items: Sequence[I]) -> None:
        """These items are not in flight any more: their group ended, or their claim failed."""
        self.in_flight -= len(items)
        if self.traced:
            self.forget_traced(items)
        for item in items:
            share = self.share_of(item)
            self.in_flight_of[share] = count = self.in_flight_of[share] - 1
            if not count:
                del self.in_flight_of[share]
            elif count == self.share_limit - WORTH_A_CLAIM:
                self.wake()  # the share was at its limit: the last claim may have skipped rows of it

    # -- Hooks: doing and settling ---------------------------------------------------------------------------------

    def groups(self, items: Sequence[I]) -> Sequence[Sequence[I]]:
        """Items that one task does together. A group has no items in doubt, or only such."""
        return [(item,) for item in items]

    def in_doubt(self, item: I) -> bool:
        """Whether an earlier send may have succeeded."""
        return False

    @abstractmethod
    async def send(self, items: Sequence[I]) -> Sequence[O]:
        """Do the work; one outcome per item. Failures of the other side are outcomes, not errors."""

    async def resolve(self, items: Sequence[I]) -> Sequence[O]:
        """Look up the earlier sends of items in doubt before anything is sent again; one outcome per item."""
        raise NotImplementedError

    @abstractmethod
    async def settle(self, outcomes: Sequence[O]) -> list[Row]:
        """Write outcomes with one commit, fenced by worker and attempt. Returns a row for each that was still ours."""

    async def after_settle(self, written: Sequence[tuple[O, Row]]) -> None:
        """Called after that commit, with the rows that `settle` returned: live messages, metrics, wakes. Errors are logged."""

    @abstractmethod
    def changed(self, outcome: O, row: Row) -> changes.ChangeLine | None:
        """The change of state by an outcome, also where the state stays the same, with its row of `settle`: for the log."""

    async def submit(self, outcome: O) -> Row | None:
        """Add an outcome to a batch and wait for its commit. Returns its row of `settle`; None: it was not ours any more."""
        return await self.outcomes.submit(outcome)

    async def after_failed_write(self, outcome: O, error: Exception) -> O:
        """The outcome to write after an error: the same one again if the error is of `write_again`. Raises all others."""
        if not isinstance(error, self.write_again):
            raise error
        await asyncio.sleep(WRITE_AGAIN)
        return outcome

    @abstractmethod
    def is_done(self, outcome: O, written: bool) -> bool:
        """Whether the row is finished for good. The Worker row counts the others as failed."""

    def processes(self) -> tuple[int, int]:
        """Child processes that run rows now, and how many may before other tenants wait; 0, 0: rows need none."""
        return 0, 0

    # -- Hooks: stopping ---------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Wait until all outcomes so far are written."""
        await self.outcomes.finish()

    @abstractmethod
    async def give_back(self, items: Sequence[I]) -> None:
        """Write, fenced, that these items were begun and not finished: another worker may claim them now."""

    async def close(self) -> None:
        """Wait for the batches, then close everything that was opened."""
        await self.finish()

    def background(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """Coroutine functions that are repeated for as long as a drain runs."""
        return ()
