"""Processors of kind `sandbox`: they book in a table of their own and fail on command, for demos and tests.

Options on the Processor row: `delay` (ms), `failing` (answers "not booked", late), `hang` (books and never answers),
`decline` (share of payments refused for good, 0 to 1); for refunds `refundFailing`, `refundHang` and `refundDecline`. Changes
take effect as soon as routing reads the row.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Self
from uuid import UUID

import msgspec

from payments.processors.base import Account, Health, Order, Outcome, Record, RefundOrder, Result, Unanswered
from registry.data import database
from registry.data.batching import Batcher
from registry.errors import Unavailable

SQL = database.statements(Path(__file__).parent / "sql" / "sandbox.sql")

ANSWER_TIMEOUT = 6.0  # seconds that the caller waits; as for processors of kind http
RECORDS = 1000  # bookings per page


class _Booking(msgspec.Struct, frozen=True):
    processor_id: int
    order: Order


class _Return(msgspec.Struct, frozen=True):
    processor_id: int
    order: RefundOrder


class SandboxProcessor:
    """A simulated processor without a network; its bookings survive restarts like a real one's."""

    kind: ClassVar[str] = "sandbox"
    polled: ClassVar[bool] = False

    async def __aenter__(self) -> Self:
        self._books: Batcher[_Booking, bool] = Batcher(_book, in_flight=1)
        self._returns: Batcher[_Return, bool] = Batcher(_give_back, in_flight=1)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._books.finish()
        await self._returns.finish()

    async def send(self, order: Order, account: Account) -> Outcome:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                await asyncio.sleep(account.number("delay") / 1000)
                if account.options.get("failing"):
                    return Outcome(Result.NOT_BOOKED, code="http_500", healthy=False, outage=True)
                if _unlucky(order.correlation_id, account.number("decline")):
                    return Outcome(Result.DECLINED, code="card_declined")
                fresh = await self._books.submit(_Booking(account.id, order))
                if account.options.get("hang"):
                    await asyncio.Event().wait()
                return Outcome(Result.BOOKED, code="http_200" if fresh else "already_booked")
        except TimeoutError:
            return Outcome(Result.UNKNOWN, code="timeout", healthy=False)
        except Unavailable:  # our database is away
            return Outcome(Result.UNKNOWN, code="sandbox_away")

    async def look_up(self, order: Order, account: Account) -> Outcome:
        try:
            found = await database.fetch(SQL["look_up"], {"processor": account.id, "correlation": order.correlation_id})
        except Unavailable:
            return Outcome(Result.UNKNOWN, code="sandbox_away")
        return Outcome(Result.BOOKED, code="looked_up") if found else Outcome(Result.NOT_BOOKED, code="not_there_yet")

    async def health(self, account: Account) -> Health:
        return Health(bool(account.options.get("failing")), int(account.number("delay")))

    # -- Refunds -------------------------------------------------------------------------------------------

    async def refund(self, order: RefundOrder, account: Account) -> Outcome:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                await asyncio.sleep(account.number("delay") / 1000)
                if account.options.get("refundFailing"):
                    return Outcome(Result.NOT_BOOKED, code="http_500", healthy=False, outage=True)
                if _unlucky(order.refund_id, account.number("refundDecline")):
                    return Outcome(Result.DECLINED, code="refund_declined")
                booked = await self._returns.submit(_Return(account.id, order))
                if account.options.get("refundHang"):
                    await asyncio.Event().wait()
        except TimeoutError:
            return Outcome(Result.UNKNOWN, code="timeout", healthy=False)
        except Unavailable:
            return Outcome(Result.UNKNOWN, code="sandbox_away")
        if not booked:
            return Outcome(Result.DECLINED, code="no_such_payment")
        return Outcome(Result.BOOKED, code="http_200", reference=_reference(order))

    async def look_up_refund(self, order: RefundOrder, account: Account) -> Outcome:
        try:
            found = await database.fetch(
                SQL["look_up_refund"], {"processor": [account.id], "refund": [order.refund_id]}
            )
        except Unavailable:
            return Outcome(Result.UNKNOWN, code="sandbox_away")
        if not found:
            return Outcome(Result.NOT_BOOKED, code="not_there_yet")
        return Outcome(Result.BOOKED, code="looked_up", reference=_reference(order))

    # -- Bookings ---------------------------------------------------------------------------------------------

    async def records(self, account: Account, since: datetime, until: datetime) -> AsyncIterator[Record]:
        after = UUID(int=0)
        while True:
            page = await self._page(account, since, until, after)
            for correlation_id, amount, currency, requested_at, refunded in page:
                yield Record(
                    correlation_id=correlation_id,
                    reference=str(correlation_id),
                    amount=amount,
                    currency=currency,
                    refunded=refunded,
                    requested_at=requested_at,
                )
            if len(page) < RECORDS:
                return
            after = page[-1][0]

    async def _page(self, account: Account, since: datetime, until: datetime, after: UUID) -> list[database.Row]:
        parameters = {"processor": account.id, "since": since, "until": until, "after": after, "limit": RECORDS}
        try:
            return await database.fetch(SQL["records"], parameters)
        except Unavailable as error:
            raise Unanswered(str(error)) from error


def _unlucky(identifier: UUID, share: float) -> bool:
    """Decide by the payment's id, so that the same payment is declined at every try, as a card would be."""
    return identifier.int % 1000 < share * 1000


async def _book(batch: Sequence[_Booking]) -> list[bool]:
    booked = await database.fetch(
        SQL["book"],
        {
            "processor": [b.processor_id for b in batch],
            "correlation": [b.order.correlation_id for b in batch],
            "amount": [b.order.amount for b in batch],
            "currency": [b.order.currency for b in batch],
            "requested_at": [b.order.requested_at for b in batch],
        },
    )
    fresh = set(booked)
    return [(b.processor_id, b.order.correlation_id) in fresh for b in batch]


def _reference(order: RefundOrder) -> str:
    return f"sandbox-{order.refund_id}"


def _booked_as(order: RefundOrder) -> UUID:
    """The id of the booking. A payment that we did not send is stored under its reference instead of our id."""
    try:
        return UUID(order.payment_reference)
    except ValueError:
        return order.payment_id


async def _give_back(batch: Sequence[_Return]) -> list[bool]:
    """Book each payment unless it is booked already; returns whether it is booked now."""
    keys = {"processor": [b.processor_id for b in batch], "refund": [b.order.refund_id for b in batch]}
    await database.fetch(
        SQL["refund"],
        {
            **keys,
            "correlation": [_booked_as(b.order) for b in batch],
            "amount": [b.order.amount for b in batch],
            "currency": [b.order.currency for b in batch],
            "requested_at": [b.order.requested_at for b in batch],
        },
    )
    stand = set(await database.fetch(SQL["look_up_refund"], keys))
    return [(b.processor_id, b.order.refund_id) in stand for b in batch]
