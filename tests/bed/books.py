"""A processor's own record of bookings and requests, with which our ledger must agree. Contains no HTTP."""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

CENTS = 100  # minor units of the amounts that the bed understands


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /payments."""

    correlationId: str
    amount: Decimal
    requestedAt: str


class Received(NamedTuple):
    """A call of POST /payments, whatever came of it."""

    correlation_id: str
    amount: int  # minor units
    requested_at: datetime


class Booking(NamedTuple):
    amount: int  # minor units
    requested_at: datetime


_decode = msgspec.json.Decoder(Order).decode


def read_order(body: bytes) -> Received:
    """Raises ValueError unless the order is to the letter of the contract: whole cents, milliseconds, Z."""
    order = _decode(body)  # msgspec's errors are ValueErrors
    cents = order.amount * CENTS
    if cents <= 0 or cents != int(cents):
        raise ValueError(f"amount {order.amount} is not a positive number of cents")
    stamp = order.requestedAt
    if len(stamp) != 24 or stamp[19] != "." or stamp[23] != "Z":
        raise ValueError(f"requestedAt {stamp!r} is not like 2025-07-15T12:34:56.000Z")
    return Received(order.correlationId, int(cents), datetime.fromisoformat(stamp))


class Books:
    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.booked: dict[str, Booking] = {}
        self.duplicates = 0  # bookings refused because they were there already

    def book(self, order: Received) -> bool:
        """Whether it was booked now; False if it had been before."""
        if order.correlation_id in self.booked:
            self.duplicates += 1
            return False
        self.booked[order.correlation_id] = Booking(order.amount, order.requested_at)
        return True

    def between(self, start: datetime | None, end: datetime | None) -> Iterator[Booking]:
        """Both ends belong to the window."""
        return (
            booking
            for booking in self.booked.values()
            if (start is None or start <= booking.requested_at) and (end is None or booking.requested_at <= end)
        )

    def summary(self, start: datetime | None = None, end: datetime | None = None) -> tuple[int, int]:
        """How many, and how much in minor units."""
        amounts = [booking.amount for booking in self.between(start, end)]
        return len(amounts), sum(amounts)

    def clear(self) -> None:
        self.requests.clear()
        self.booked.clear()
        self.duplicates = 0
