"""What every kind of processor offers, and the words for what came of it. One kind, one file, one identical shape."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Protocol, Self
from uuid import UUID

import msgspec


class Result(StrEnum):
    """What is known after a send or a look-up."""

    BOOKED = "booked"
    DECLINED = "declined"  # for good: another try would get the same answer
    NOT_BOOKED = "not_booked"  # for certain, for this send; a look-up's NOT_BOOKED only means "not yet"
    UNKNOWN = "unknown"  # it may have been booked, or may still be


class Outcome(msgspec.Struct, frozen=True):
    """The answer of a processor. `healthy` is what it says about the processor, for its breaker."""

    result: Result
    code: str = ""
    healthy: bool = True
    outage: bool = False  # it is the processor that cannot, whoever asks
    retry_after: float = 0.0  # seconds that the processor asked for


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A payment on its way to a processor."""

    correlation_id: UUID
    amount: int  # minor units
    currency: str  # ISO 4217
    requested_at: datetime  # stamped once, at dispatch; milliseconds


class Health(msgspec.Struct, frozen=True):
    """What a processor says of itself."""

    failing: bool
    min_response_ms: int


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's account at a processor, as routing and sending need it."""

    id: int
    tenant_id: int
    name: str
    kind: str
    url: str
    fee_ppm: int  # parts per million of the amount
    options: dict[str, Any]
    enabled: bool
    endpoint: str  # what health, breaker and connections are shared by

    @property
    def longest_delay(self) -> float:
        """Seconds after which the processor can no longer book what it was sent: only then does 404 mean no."""
        return self.number("longestDelay", 30.0)

    def number(self, option: str, default: float = 0.0) -> float:
        """An option as a number of at least zero; `default` where somebody wrote what is none."""
        try:
            value = float(self.options.get(option, default))
        except (TypeError, ValueError):
            return default
        return value if 0 <= value < 1e9 else default


class Processor(Protocol):
    """A processor's client, one per endpoint and event loop. It is opened on entering and closed on leaving."""

    kind: ClassVar[str]
    polled: ClassVar[bool]  # whether it has a health call worth making

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def send(self, order: Order, account: Account) -> Outcome:
        """Ask for the booking. Never raises for what a processor may do; cancellation leaves the outcome unknown."""

    async def look_up(self, order: Order, account: Account) -> Outcome:
        """Ask whether it is booked: BOOKED, NOT_BOOKED (yet), or UNKNOWN."""

    async def health(self, account: Account) -> Health | None:
        """What it says of itself; None when it does not say (rate limited, no answer)."""
