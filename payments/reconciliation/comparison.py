"""Reconciliation: compare a processor's books with ours, for a window of requestedAt that has ended.

Kinds that list their books (ShowsBooks) are compared both ways, one slice of time after the other, so that memory holds one
slice. A payment that only one side has is looked up before it becomes a difference: clocks differ, and a booking at the edge of a
slice may be in the next one. At other kinds (http) a sample of our payments is looked up one by one: this finds only payments
that are missing there. Operators resolve differences: operate.py.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import batched
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import msgspec

from payments.models import Difference
from payments.processors import KINDS
from payments.processors.base import Account, Processor, ProcessorRecord, Result, ShowsBooks, Unanswered
from payments.reconciliation.matching import UNDER_WAY, NewDifference, Ours, ids_of, match, missing_there
from payments.routing.routing import RoutingTable
from registry.data import clock, database
from registry.data.chores import chore
from registry.errors import Unavailable
from registry.telemetry import metrics
from registry.tenants import access

log = logging.getLogger(__name__)

_STATEMENTS = database.statements(Path(__file__).parent / "sql" / "reconciliation.sql")
SQL = {name: sql.replace("{columns}", _STATEMENTS["columns"]) for name, sql in _STATEMENTS.items()}

SETTLED_AFTER = timedelta(seconds=2)  # after the end of a window its last outcomes are stored
SLICE = 5000  # of our payments, all in memory
CHUNK = 500  # records compared at a time
SAMPLE = 200  # payments of a window that are looked up one by one
AT_ONCE = 20  # concurrent look-ups
LEASE = 120.0  # seconds; longer than a slice takes
RESUMED_WITHIN = timedelta(days=3)  # older unfinished windows are left to an operator
EDGE = timedelta(milliseconds=1)  # the precision of requestedAt: `records` includes the end of its range


class Comparison(msgspec.Struct, frozen=True):
    """The result of a comparison."""

    records: int  # of the processor's
    payments: int  # of ours
    differences: int
    unanswered: int
    finished: bool


class SliceResult(msgspec.Struct):
    """The counts of a slice."""

    records: int = 0
    payments: int = 0
    differences: int = 0
    unanswered: int = 0


class Window(msgspec.Struct, frozen=True):
    """A range of requestedAt: from `since` to before `until`."""

    since: datetime
    until: datetime

    @classmethod
    def latest(cls, span: timedelta) -> "Window":
        """The last `span`, up to the last whole minute whose outcomes are all stored."""
        until = (clock.now() - SETTLED_AFTER).replace(second=0, microsecond=0)
        return cls(until - span, until)


# -- A window ------------------------------------------------------------------------------------------------


async def reconcile(account: Account, window: Window, *, again: bool = False) -> Comparison | None:
    """Compare a window; None if it was compared before (unless `again`) or another worker compares it now.

    A comparison that a worker left unfinished is resumed. An answer that is missing stops the comparison and is stored as fault.
    """
    run = await _begin(account, window, both_ways=shows_books(account), again=again)
    if run is None:
        return None
    try:
        async with KINDS[account.kind]() as processor:
            await _compare(run, processor, account, window)
    except (Unanswered, Unavailable) as error:
        await database.fetch(SQL["stop"], {**run.key, "fault": str(error)[:300]})
        log.warning("reconciliation stopped", extra={"processor": account.name, "error": str(error)})
    return await run.outcome()


def shows_books(account: Account) -> bool:
    """Whether the processor lists its books, so that both sides are compared."""
    return issubclass(KINDS[account.kind], ShowsBooks)


class _Run(msgspec.Struct):
    """A comparison leased by this worker."""

    id: int
    attempt: int
    reached: datetime | None
    tenant_id: int
    both_ways: bool

    @property
    def key(self) -> dict[str, Any]:
        return {"tenant": self.tenant_id, "id": self.id, "attempt": self.attempt}

    async def reach(self, at: datetime, counts: SliceResult) -> None:
        """Store the progress and renew the lease. Raises Unanswered if another worker has taken over."""
        written = await database.fetch(
            SQL["reach"], {**self.key, "reached": at, "lease": LEASE, **msgspec.to_builtins(counts)}, repeatable=False
        )
        if not written:
            raise Unanswered("another worker has taken it over")

    async def outcome(self) -> Comparison:
        [row] = await database.fetch(SQL["result"], {"tenant": self.tenant_id, "id": self.id})
        return Comparison(*row)


async def _begin(account: Account, window: Window, *, both_ways: bool, again: bool) -> _Run | None:
    asked = {"tenant": account.tenant_id, "processor": account.id, "since": window.since, "until": window.until}
    rows = await database.fetch(SQL["begin"], {**asked, "both_ways": both_ways, "lease": LEASE, "again": again})
    for run, attempt, reached in rows:
        return _Run(run, attempt, reached, account.tenant_id, both_ways)
    return None


async def _compare(run: _Run, processor: Processor, account: Account, window: Window) -> None:
    every = 1 if run.both_ways else await _stride(account, window)
    purged = await database.fetch(SQL["purged_at"], {"tenant": account.tenant_id})
    since = max([run.reached or window.since, *(at for (at,) in purged)])
    while since < window.until:
        piece = Window(since, await _slice_end(account, since, window.until))
        if run.both_ways:
            counts = await _both_ways(processor, account, piece)
        else:
            counts = await _one_way(processor, account, piece, every=every, first=run.id % every)
        await run.reach(piece.until, counts)
        since = piece.until
    ended = {**run.key, "both_ways": run.both_ways, "complete": every == 1}
    await database.fetch(SQL["finish"], ended, prepare=False)


async def _slice_end(account: Account, since: datetime, until: datetime) -> datetime:
    rows = await database.fetch(SQL["slice_end"], {**_span(account, Window(since, until)), "rows": SLICE})
    return max(rows[0][0], since + EDGE) if rows else until


async def _stride(account: Account, window: Window) -> int:
    [(count,)] = await database.fetch(SQL["booked"], _span(account, window))
    return max(1, -(-count // SAMPLE))


def _span(account: Account, window: Window) -> dict[str, Any]:
    return {"tenant": account.tenant_id, "processor": account.id, "since": window.since, "until": window.until}


async def _ours(account: Account, piece: Window, *, every: int = 1, first: int = 0) -> list[Ours]:
    rows = await database.fetch(SQL["ours"], {**_span(account, piece), "every": every, "first": first})
    return [Ours(*row) for row in rows]


# -- Both ways -----------------------------------------------------------------------------------------------


async def _both_ways(processor: Processor, account: Account, piece: Window) -> SliceResult:
    ours = await _ours(account, piece)
    counts, seen = SliceResult(payments=len(ours)), set[UUID]()
    by_id = {one.correlation_id: one for one in ours}
    books = cast(ShowsBooks, processor).records(account, piece.since, piece.until - EDGE)
    async for chunk in _chunks(books):
        counts.records += len(chunk)
        await learn(account, chunk, by_id)
        counts.differences += await write(account, await differences(account, chunk, by_id, seen))
    unseen = [one for one in ours if one.correlation_id not in seen]
    await _look_up(processor, account, unseen, counts)
    return counts


async def _chunks(records: AsyncIterator[ProcessorRecord]) -> AsyncIterator[list[ProcessorRecord]]:
    chunk: list[ProcessorRecord] = []
    async for record in records:
        chunk.append(record)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def learn(account: Account, chunk: Sequence[ProcessorRecord], by_id: dict[UUID, Ours]) -> None:
    """Add our payments outside the slice that these records may belong to."""
    missing = {one for record in chunk for one in ids_of(account, record)} - by_id.keys()
    if missing:
        rows = await database.fetch(SQL["known"], {"tenant": account.tenant_id, "correlations": list(missing)})
        by_id.update((one.correlation_id, one) for one in (Ours(*row) for row in rows))


async def differences(
    account: Account, chunk: Sequence[ProcessorRecord], by_id: dict[UUID, Ours], seen: set[UUID]
) -> list[NewDifference]:
    """The differences between these records and our payments. The sum of refunds is none while a refund is in progress: the processor
    may have returned it before we store that, or after the payment was read."""
    found = [one for record in chunk if (one := match(account, record, by_id, seen))]
    doubtful = {one.payment_id for one in found if one.kind == Difference.Kind.REFUNDED}
    if not doubtful:
        return found
    asked = {"tenant": account.tenant_id, "payments": list(doubtful), "under_way": UNDER_WAY.total_seconds()}
    changing = {payment for (payment,) in await database.fetch(SQL["refunds_under_way"], asked)}
    return [one for one in found if one.kind != Difference.Kind.REFUNDED or one.payment_id not in changing]


# -- One way ------------------------------------------------------------------------------------------------


async def _one_way(processor: Processor, account: Account, piece: Window, *, every: int, first: int) -> SliceResult:
    sample = await _ours(account, piece, every=every, first=first)
    counts = SliceResult(payments=len(sample))
    await _look_up(processor, account, sample, counts)
    return counts


async def _look_up(processor: Processor, account: Account, unseen: Sequence[Ours], counts: SliceResult) -> None:
    """Look up payments without a record: only those that the processor denies are missing there."""
    for batch in batched(unseen, AT_ONCE):
        answers = await asyncio.gather(*(processor.look_up(one.order(account), account) for one in batch))
        denied = [
            one
            for one, answer in zip(batch, answers, strict=True)
            if answer.result in (Result.NOT_BOOKED, Result.CANCELED)
        ]
        counts.unanswered += sum(answer.result is Result.UNKNOWN for answer in answers)
        counts.differences += await write(account, [missing_there(one) for one in denied])


async def write(account: Account, differences: Iterable[NewDifference]) -> int:
    """Store the differences, once each; how many of them are open now."""
    unique = {(one.kind, one.key): one for one in differences}
    if not unique:
        return 0
    columns = {name: [getattr(one, name) for one in unique.values()] for name in NewDifference.__struct_fields__}
    rows = await database.fetch(SQL["insert"], {"tenant": account.tenant_id, "processor": account.id, **columns})
    for one in unique.values():
        metrics.DIFFERENCES.labels(one.kind).inc()
    return len(rows)


# -- On a schedule --------------------------------------------------------------------------------------------


async def accounts_of(tenant_id: int) -> list[Account]:
    """The accounts of a tenant whose kind is installed."""
    routes = RoutingTable()
    await routes.load({tenant_id})
    return [account for account, _ in routes.of(tenant_id) if account.kind in KINDS]


async def reconcile_latest(tenant_ids: Iterable[int], span: timedelta) -> list[Comparison]:
    """Compare the unfinished windows, and then the latest one, of each processor of these tenants."""
    window, comparisons = Window.latest(span), []
    for tenant_id in shuffled(tenant_ids):
        by_id = {account.id: account for account in await accounts_of(tenant_id)}
        asked = {"tenant": tenant_id, "within": RESUMED_WITHIN.total_seconds()}
        rows = await database.fetch(SQL["unfinished"], asked, prepare=False)
        unfinished = [(by_id[p], Window(since, until)) for _, p, since, until in rows if p in by_id]
        for account, piece in unfinished + [(account, window) for account in by_id.values()]:
            if comparison := await reconcile(account, piece):
                comparisons.append(comparison)
    return comparisons


async def _compare_books(span: timedelta) -> None:
    comparisons = await reconcile_latest(await access.tenant_ids(), span)
    payments, differences = sum(c.payments for c in comparisons), sum(c.differences for c in comparisons)
    write_log = log.warning if differences else log.info
    write_log("books compared", extra={"windows": len(comparisons), "payments": payments, "differences": differences})


chore("reconcile-hourly", every=3600)(partial(_compare_books, timedelta(hours=2)))
chore("reconcile-daily", every=86400)(partial(_compare_books, timedelta(days=2)))


def shuffled[T](things: Iterable[T]) -> list[T]:
    """In random order, so that a slow tenant does not always delay the same others."""
    mixed = list(things)
    random.shuffle(mixed)
    return mixed
