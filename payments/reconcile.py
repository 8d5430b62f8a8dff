"""A processor's books against ours, for a window of requestedAt that has ended. What an operator does then: differences.py.

Where a kind shows its books both sides are compared: its records come in whatever order it keeps them, and ours of the same
slice stand beside them, so that memory holds one slice. What only one side has is asked about once more before it is a
difference: clocks differ, and a booking at a slice's edge may stand in the next one. A kind without books (http) is asked
about a sample of our payments, one by one: it can show what is missing there, and nothing else.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, cast
from uuid import UUID, uuid5

import msgspec

from payments.models import Difference
from payments.processors import KINDS
from payments.processors.base import Account, Order, Processor, Record, Result, ShowsBooks, Unanswered
from payments.routing import Atlas
from payments.states import SUCCEEDED, TERMINAL
from registry import database, telemetry
from registry.errors import Unavailable

log = logging.getLogger(__name__)

EXTERNAL = "booked as external"  # reason of the attempt of a payment that we did not send
_COLUMNS = f"""p.id, p.correlation_id, p.amount, p.currency, p.refunded, p.requested_at, p.status, p.processor_id,
    p.created_at, p.changed_at,
    (SELECT max(a.reference) FROM payments_attempt a WHERE a.tenant_id = p.tenant_id AND a.payment_id = p.id
        AND a.requested_at = p.requested_at),
    (SELECT p.metadata -> 'external' ->> 'correlationId' FROM payments_attempt a WHERE a.tenant_id = p.tenant_id
        AND a.payment_id = p.id AND a.number = p.attempt AND a.reason = '{EXTERNAL}')"""
SQL = {
    name: sql.replace("{columns}", _COLUMNS)
    for name, sql in database.statements(Path(__file__).parent / "sql" / "reconcile.sql").items()
}

SETTLED_AFTER = timedelta(seconds=2)  # a window is compared once its last outcome has had time to be written
UNDER_WAY = timedelta(minutes=15)  # after its last change that what a worker finds out may still settle a payment
SLICE = 5000  # of our payments: what memory holds
CHUNK = 500  # records compared at a time
SAMPLE = 200  # payments of a window that are looked up one by one
ASKED_AT_ONCE = 20  # look-ups side by side
LEASE = 120.0  # seconds; longer than a slice takes
RESUMED_WITHIN = timedelta(days=3)  # what could not be read for longer is left to an operator
EDGE = timedelta(milliseconds=1)  # the precision of requestedAt: books are read to the end of a slice, inclusive
_NAMESPACE = UUID("b6e5a1c2-6d0f-4f43-9a37-1c8a3f0f7d11")  # of payments that we did not send

Kind = Difference.Kind


class Ours(NamedTuple):
    """A payment as we know it, in the order of _COLUMNS."""

    id: int
    correlation_id: UUID
    amount: int
    currency: str
    refunded: int
    requested_at: datetime | None
    status: str
    processor_id: int | None
    created_at: datetime
    changed_at: datetime
    reference: str | None
    booked_for: str | None  # external: the correlation id that the processor knows

    def order(self, account: Account, reference: str = "") -> Order:
        return Order(
            correlation_id=UUID(self.booked_for) if self.booked_for else self.correlation_id,
            amount=self.amount,
            currency=self.currency,
            requested_at=self.requested_at or self.created_at,
            tenant_id=account.tenant_id,
            reference=reference or self.reference or "",
        )


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A difference, as it is written down."""

    kind: str
    key: str
    requested_at: datetime
    correlation_id: UUID | None = None
    reference: str = ""
    payment_id: int | None = None
    our_status: str = ""
    our_amount: int | None = None
    our_currency: str = ""
    our_refunded: int | None = None
    their_amount: int | None = None
    their_currency: str = ""
    their_refunded: int | None = None


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
    await database.fetch(SQL["finish"], {**run.key, "both_ways": run.both_ways, "complete": every == 1})


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
    wanted = {one for record in chunk for one in names(account, record)} - by_id.keys()
    if wanted:
        rows = await database.fetch(SQL["known"], {"tenant": account.tenant_id, "correlations": list(wanted)})
        by_id.update((found.correlation_id, found) for found in (Ours(*row) for row in rows))


def external_id(account: Account, correlation_id: UUID | None, reference: str) -> UUID:
    """The id of the payment that stands for a booking of theirs that we did not make: the same every time."""
    return uuid5(_NAMESPACE, f"{account.tenant_id}:{account.id}:{correlation_id or reference}")


def names(account: Account, record: Record) -> list[UUID]:
    """The ids under which a record may stand in our books."""
    ids = [external_id(account, None, record.reference)]
    if record.correlation_id:
        ids += external_id(account, record.correlation_id, ""), record.correlation_id
    return ids


def judge(account: Account, record: Record, by_id: dict[UUID, Ours], seen: set[UUID]) -> Finding | None:
    """What is wrong with a record of theirs beside what we know; None where nothing is. `seen`: payments found there."""
    known = [one for name in names(account, record) if (one := by_id.get(name))]
    booked = [one for one in known if one.status == SUCCEEDED and one.processor_id == account.id]
    for one in booked:
        if _is_its_booking(one, record, seen):
            seen.add(one.correlation_id)
            return _differs(record, one)
    if booked:
        return _finding(Kind.DUPLICATE, record, booked[0], key=record.reference or str(booked[0].correlation_id))
    ours = by_id.get(record.correlation_id) if record.correlation_id else None
    if ours is not None and ours.status == SUCCEEDED:
        return _finding(Kind.DUPLICATE, record, ours)  # booked at another processor by our books
    if ours is not None and _is_under_way(ours):
        return None
    return _finding(Kind.MISSING_HERE, record, ours)


def _is_its_booking(ours: Ours, record: Record, seen: set[UUID]) -> bool:
    """By its name there; where a side has no names for bookings, the first that is met."""
    if ours.reference and record.reference:
        return ours.reference == record.reference
    return ours.correlation_id not in seen


def _is_under_way(ours: Ours) -> bool:
    """Also what waits for an action: workers have nothing to do for it, and it may be booked any moment."""
    return ours.status not in TERMINAL and datetime.now(UTC) - ours.changed_at < UNDER_WAY


def _differs(record: Record, ours: Ours) -> Finding | None:
    if record.currency.upper() != ours.currency:
        return _finding(Kind.CURRENCY, record, ours)
    if record.amount != ours.amount:
        return _finding(Kind.AMOUNT, record, ours)
    if record.refunded != ours.refunded:
        return _finding(Kind.REFUNDED, record, ours)
    return None


def _finding(kind: Kind, record: Record, ours: Ours | None, *, key: str = "") -> Finding:
    return Finding(
        kind=kind.value,
        key=key or str(record.correlation_id or record.reference),
        requested_at=record.requested_at,
        correlation_id=record.correlation_id,
        reference=record.reference[:255],
        their_amount=record.amount,
        their_currency=record.currency.upper(),
        their_refunded=record.refunded,
        **_our_side(ours),
    )


def _our_side(ours: Ours | None) -> dict[str, Any]:
    if ours is None:
        return {}
    return {
        "payment_id": ours.id,
        "our_status": ours.status,
        "our_amount": ours.amount,
        "our_currency": ours.currency,
        "our_refunded": ours.refunded,
    }


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


def missing_there(ours: Ours) -> Finding:
    return Finding(
        kind=Kind.MISSING_THERE.value,
        key=str(ours.correlation_id),
        requested_at=ours.requested_at or ours.created_at,
        correlation_id=ours.correlation_id,
        reference=ours.reference or "",
        **_our_side(ours),
    )


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
        begun = await database.fetch(SQL["unfinished"], {"tenant": tenant_id, "within": RESUMED_WITHIN.total_seconds()})
        work = [(by_id[p], Window(since, until)) for _, p, since, until in begun if p in by_id]
        for account, piece in work + [(account, window) for account in by_id.values()]:
            if outcome := await reconcile(account, piece):
                outcomes.append(outcome)
    return outcomes


def shuffled[T](things: Iterable[T]) -> list[T]:
    """In another order each time: who is slow is not always in front of the others."""
    found = list(things)
    random.shuffle(found)
    return found
