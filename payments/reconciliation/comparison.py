"""Reconciliation: compares a processor's books with ours, for a window of requestedAt that has ended.

Kinds that show their books (ShowsBooks) are compared both ways, a slice of time after the other, so that memory holds one
slice. What only one side has is looked up once more before it becomes a difference: clocks differ, and a booking at a
slice's edge may be in the next slice. A kind without books (http) is asked about a sample of our payments, one by one: this
finds payments that are missing there, and nothing else. Operators resolve differences in operate.py.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import msgspec

from payments.processors import KINDS
from payments.processors.base import Account, Processor, Record, Result, ShowsBooks, Unanswered
from payments.reconciliation.verdicts import Finding, Ours, ids_of, judge, missing_there
from payments.routing.routing import Atlas
from registry import telemetry
from registry.data import database
from registry.data.chores import chore
from registry.errors import Unavailable
from registry.tenants import access

log = logging.getLogger(__name__)

_STATEMENTS = database.statements(Path(__file__).parent / "sql" / "reconciliation.sql")
SQL = {name: sql.replace("{columns}", _STATEMENTS["columns"]) for name, sql in _STATEMENTS.items()}

SETTLED_AFTER = timedelta(seconds=2)  # a window is compared once its last outcome has had time to be written
SLICE = 5000  # of our payments: what memory holds
CHUNK = 500  # records compared at a time
SAMPLE = 200  # payments of a window that are looked up one by one
ASKED_AT_ONCE = 20  # look-ups side by side
LEASE = 120.0  # seconds; longer than a slice takes
RESUMED_WITHIN = timedelta(days=3)  # what could not be read for longer is left to an operator
EDGE = timedelta(milliseconds=1)  # the precision of requestedAt: books are read to the end of a slice, inclusive


class Outcome(msgspec.Struct, frozen=True):
    """What a comparison came to."""

    records: int  # of the processor's
    payments: int  # of ours
    differences: int
    unanswered: int
    finished: bool


class Counted(msgspec.Struct):
    """What a slice came to."""

    records: int = 0
    payments: int = 0
    differences: int = 0
    unanswered: int = 0


class Window(msgspec.Struct, frozen=True):
    """From `since` to before `until`."""

    since: datetime
    until: datetime

    @classmethod
    def latest(cls, span: timedelta) -> "Window":
        """The last `span` up to the last whole minute that has certainly settled."""
        until = (datetime.now(UTC) - SETTLED_AFTER).replace(second=0, microsecond=0)
        return cls(until - span, until)


# -- A window ------------------------------------------------------------------------------------------------


async def reconcile(account: Account, window: Window, *, again: bool = False) -> Outcome | None:
    """Compare a window; None where it was compared before or somebody is at it. `again`: even if it was.

    It goes on where a worker that died had got to. What the processor does not answer ends it for now, with a reason.
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
    """Whether its books can be read, so that both sides are compared."""
    return issubclass(KINDS[account.kind], ShowsBooks)


class _Run(msgspec.Struct):
    """A comparison in this worker's hands."""

    id: int
    attempt: int
    reached: datetime | None
    tenant_id: int
    both_ways: bool

    @property
    def key(self) -> dict[str, Any]:
        return {"tenant": self.tenant_id, "id": self.id, "attempt": self.attempt}

    async def reach(self, at: datetime, counted: Counted) -> None:
        """Raises Unanswered where somebody else has taken it over."""
        written = await database.fetch(
            SQL["reach"], {**self.key, "reached": at, "lease": LEASE, **msgspec.to_builtins(counted)}, repeatable=False
        )
        if not written:
            raise Unanswered("another worker has taken it over")

    async def outcome(self) -> Outcome:
        [row] = await database.fetch(SQL["result"], {"tenant": self.tenant_id, "id": self.id})
        return Outcome(*row)


async def _begin(account: Account, window: Window, *, both_ways: bool, again: bool) -> _Run | None:
    asked = {"tenant": account.tenant_id, "processor": account.id, "since": window.since, "until": window.until}
    rows = await database.fetch(SQL["begin"], {**asked, "both_ways": both_ways, "lease": LEASE, "again": again})
    for run, attempt, reached in rows:
        return _Run(run, attempt, reached, account.tenant_id, both_ways)
    return None


async def _compare(run: _Run, processor: Processor, account: Account, window: Window) -> None:
    every = 1 if run.both_ways else await _stride(account, window)
    since = run.reached or window.since
    while since < window.until:
        piece = Window(since, await _slice_end(account, since, window.until))
        if run.both_ways:
            counted = await _both_ways(processor, account, piece)
        else:
            counted = await _one_way(processor, account, piece, every=every, first=run.id % every)
        await run.reach(piece.until, counted)
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


async def _both_ways(processor: Processor, account: Account, piece: Window) -> Counted:
    ours = await _ours(account, piece)
    counted, seen = Counted(payments=len(ours)), set[UUID]()
    by_id = {one.correlation_id: one for one in ours}
    books = cast(ShowsBooks, processor).records(account, piece.since, piece.until - EDGE)
    async for chunk in _chunks(books):
        counted.records += len(chunk)
        await learn(account, chunk, by_id)
        findings = [found for record in chunk if (found := judge(account, record, by_id, seen))]
        counted.differences += await write(account, findings)
    unseen = [one for one in ours if one.correlation_id not in seen]
    await _ask(processor, account, unseen, counted)
    return counted


async def _chunks(records: AsyncIterator[Record]) -> AsyncIterator[list[Record]]:
    chunk: list[Record] = []
    async for record in records:
        chunk.append(record)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def learn(account: Account, chunk: Sequence[Record], by_id: dict[UUID, Ours]) -> None:
    """Put beside ours of the slice what we know of other payments that these records may be of."""
    wanted = {one for record in chunk for one in ids_of(account, record)} - by_id.keys()
    if wanted:
        rows = await database.fetch(SQL["known"], {"tenant": account.tenant_id, "correlations": list(wanted)})
        by_id.update((found.correlation_id, found) for found in (Ours(*row) for row in rows))


# -- What only we have ---------------------------------------------------------------------------------------


async def _one_way(processor: Processor, account: Account, piece: Window, *, every: int, first: int) -> Counted:
    sample = await _ours(account, piece, every=every, first=first)
    counted = Counted(payments=len(sample))
    await _ask(processor, account, sample, counted)
    return counted


async def _ask(processor: Processor, account: Account, unseen: Sequence[Ours], counted: Counted) -> None:
    """Look up, one by one, what the books did not show: only what the processor denies is missing there."""
    for start in range(0, len(unseen), ASKED_AT_ONCE):
        some = unseen[start : start + ASKED_AT_ONCE]
        answers = await asyncio.gather(*(processor.look_up(one.order(account), account) for one in some))
        denied = [
            one
            for one, answer in zip(some, answers, strict=True)
            if answer.result in (Result.NOT_BOOKED, Result.CANCELED)
        ]
        counted.unanswered += sum(answer.result is Result.UNKNOWN for answer in answers)
        counted.differences += await write(account, [missing_there(one) for one in denied])


async def write(account: Account, findings: Iterable[Finding]) -> int:
    """Put down what was found, once each; how many of them are open now."""
    unique = {(found.kind, found.key): found for found in findings}
    if not unique:
        return 0
    columns = {name: [getattr(one, name) for one in unique.values()] for name in Finding.__struct_fields__}
    rows = await database.fetch(SQL["found"], {"tenant": account.tenant_id, "processor": account.id, **columns})
    for found in unique.values():
        telemetry.DIFFERENCES.labels(found.kind).inc()
    return len(rows)


# -- All of them, on a schedule --------------------------------------------------------------------------------


async def accounts_of(tenant_id: int) -> list[Account]:
    """The accounts of a tenant that can be asked anything."""
    atlas = Atlas()
    await atlas.learn({tenant_id})
    return [account for account, _ in atlas.of(tenant_id) if account.kind in KINDS]


async def reconcile_latest(tenant_ids: Iterable[int], span: timedelta) -> list[Outcome]:
    """What was begun and not ended, and then the latest window, of each processor of these tenants."""
    window, outcomes = Window.latest(span), []
    for tenant_id in shuffled(tenant_ids):
        by_id = {account.id: account for account in await accounts_of(tenant_id)}
        asked = {"tenant": tenant_id, "within": RESUMED_WITHIN.total_seconds()}
        begun = await database.fetch(SQL["unfinished"], asked, prepare=False)
        work = [(by_id[p], Window(since, until)) for _, p, since, until in begun if p in by_id]
        for account, piece in work + [(account, window) for account in by_id.values()]:
            if outcome := await reconcile(account, piece):
                outcomes.append(outcome)
    return outcomes


async def _compare_books(span: timedelta) -> None:
    outcomes = await reconcile_latest(await access.tenant_ids(), span)
    found = sum(outcome.differences for outcome in outcomes)
    compared = sum(outcome.payments for outcome in outcomes)
    say = log.warning if found else log.info
    say("books compared", extra={"windows": len(outcomes), "payments": compared, "differences": found})


chore("reconcile-hourly", every=3600)(partial(_compare_books, timedelta(hours=2)))
chore("reconcile-daily", every=86400)(partial(_compare_books, timedelta(days=2)))


def shuffled[T](things: Iterable[T]) -> list[T]:
    """In another order each time: who is slow is not always in front of the others."""
    found = list(things)
    random.shuffle(found)
    return found
