"""Processors of kind `sandbox`: they book in a table of their own and get into trouble on command, for demos and trials.

Options on the Processor row: `delay` (ms), `failing` (answers "not booked", late), `hang` (books and never answers),
`decline` (share of payments refused for good, 0 to 1). The trouble starts and ends as fast as routing reads the row.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import msgspec

from payments.processors.base import Account, Health, Order, Outcome, Result
from registry import database
from registry.batching import Batcher
from registry.errors import Unavailable

SQL = database.statements(Path(__file__).parent.parent / "sql" / "sandbox.sql")

ANSWER_TIMEOUT = 6.0  # seconds that the caller waits; as for processors of kind http


class _Booking(msgspec.Struct, frozen=True):
    processor_id: int
    order: Order


class SandboxProcessor:
    """Plays a processor without a network; its books survive restarts like a real one's."""

    kind: ClassVar[str] = "sandbox"
    polled: ClassVar[bool] = False

    async def __aenter__(self) -> Self:
        self._books: Batcher[_Booking, bool] = Batcher(_book, in_flight=1)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._books.finish()

    async def send(self, order: Order, account: Account) -> Outcome:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                await asyncio.sleep(account.number("delay") / 1000)
                if account.options.get("failing"):
                    return Outcome(Result.NOT_BOOKED, code="http_500", healthy=False, outage=True)
                if _unlucky(order, account.number("decline")):
                    return Outcome(Result.DECLINED, code="card_declined")
                fresh = await self._books.submit(_Booking(account.id, order))
                if account.options.get("hang"):
                    await asyncio.Event().wait()
                return Outcome(Result.BOOKED, code="http_200" if fresh else "already_booked")
        except TimeoutError:
            return Outcome(Result.UNKNOWN, code="timeout", healthy=False)
        except Unavailable:
            return Outcome(Result.UNKNOWN, code="sandbox_away", healthy=False)

    async def look_up(self, order: Order, account: Account) -> Outcome:
        try:
            found = await database.fetch(SQL["look_up"], {"processor": account.id, "correlation": order.correlation_id})
        except Unavailable:
            return Outcome(Result.UNKNOWN, code="sandbox_away", healthy=False)
        return Outcome(Result.BOOKED, code="looked_up") if found else Outcome(Result.NOT_BOOKED, code="not_there_yet")

    async def health(self, account: Account) -> Health:
        return Health(bool(account.options.get("failing")), int(account.number("delay")))


def _unlucky(order: Order, share: float) -> bool:
    """The same payments are declined at every try, as a card would be."""
    return order.correlation_id.int % 1000 < share * 1000


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
