"""The interface of every kind of processor, and the outcomes of its calls. One kind, one file, one identical shape."""

from collections.abc import AsyncIterator
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Protocol, Self, runtime_checkable
from uuid import UUID

import msgspec

from registry.tenants.encryption import unseal

AMOUNT_DIFFERS = (
    "amount_differs"  # code of an UNKNOWN outcome: another amount was charged than requested; no look-up changes that
)
LONGEST_DELAYS = {"stripe": 120.0}  # seconds, if not 30; Stripe's own library waits up to 80 s


class Result(StrEnum):
    """The result of a send or a look-up."""

    BOOKED = "booked"
    DECLINED = "declined"  # final: another try would get the same answer
    NOT_BOOKED = "not_booked"  # certain for this send; of a look-up it only means "not yet"
    UNKNOWN = "unknown"  # it may be booked, now or later
    REQUIRES_ACTION = "requires_action"  # it waits at the processor for the payer or the merchant
    CANCELED = "canceled"  # canceled at the processor; it will never be booked


WORKED = frozenset({Result.BOOKED, Result.REQUIRES_ACTION, Result.CANCELED})


class Outcome(msgspec.Struct, frozen=True):
    """A processor's answer: the result for the payment, and what routing learns about the processor."""

    result: Result
    code: str = ""
    healthy: bool = True  # False: the processor did not do its work, for this payment or for all
    turned_away: bool = False  # the account is refused; this says nothing about the processor
    outage: bool = False  # the processor fails for every account
    retry_after: float = 0.0  # seconds that the processor asked for
    reference: str = ""  # the processor's id of it
    fee: int | None = None  # minor units, if the answer names a fee; else the account's fee is used
    # REQUIRES_ACTION: the next action, for the payment page; AMOUNT_DIFFERS: the amount that was captured, in minor units
    action: dict[str, Any] | None = None

    @property
    def works(self) -> bool:
        """Whether the processor did its work. A refused payment or account proves neither."""
        return self.healthy and self.result in WORKED


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A payment on its way to a processor."""

    correlation_id: UUID
    amount: int  # minor units
    currency: str  # ISO 4217
    requested_at: (
        datetime  # stamped once, at dispatch, in milliseconds; with the payment it identifies the decision and its keys
    )
    tenant_id: int = 0
    description: str = ""
    method: dict[str, Any] | None = None  # payment method of the request
    reference: str = ""  # the processor's id, from an earlier answer
    canceling: bool = False  # a look-up cancels it unless it is booked
    attempt: int = 0  # number of the attempt


class RefundOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A refund on its way to the processor that booked the payment."""

    refund_id: UUID
    payment_id: UUID  # the payment's correlation id
    payment_reference: str
    amount: int  # minor units
    currency: str  # ISO 4217
    reason: str
    requested_at: datetime  # stamped at the first send, and again only after a send that was certainly never returned
    tenant_id: int
    reference: str = ""  # the processor's id of the refund, from an earlier answer


class ProcessorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A booking in the processor's own records, for reconciliation."""

    correlation_id: UUID | None  # None: the booking carries none of our ids
    reference: str
    amount: int  # minor units
    currency: str
    refunded: int
    requested_at: datetime


class Health(msgspec.Struct, frozen=True):
    """The answer of a processor's health call."""

    failing: bool
    min_response_ms: int


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's account at a processor, with what routing and sending need."""

    id: int
    tenant_id: int
    name: str
    kind: str
    url: str
    fee_ppm: int  # parts per million of the amount
    options: dict[str, Any]
    enabled: bool
    endpoint: str  # key by which health, breaker and connections are shared
    mode: str = "sandbox"  # the tenant's mode
    sealed: bytes | None = None
    plan_ppm: int = 0  # the platform's share by the tenant's plan, in parts per million of the amount (Stripe Connect)
    patience_ms: int = 300  # the tenant's patience: how long to wait for a lower fee
    public_only: bool = False  # connect to addresses on the public internet only

    @property
    def secrets(self) -> dict[str, Any]:
        """Decrypt the account's secrets; keep them only while they are used. Raises registry.tenants.encryption.Sealed."""
        return unseal(self.sealed, place=f"processor {self.id}")

    @property
    def only_by_name(self) -> bool:
        """Whether routing skips it unless a payment names it."""
        return self.options.get("onlyByName") is True

    @property
    def longest_delay(self) -> float:
        """Seconds after which the processor can no longer book a send: only then does a 404 prove that it was not booked."""
        return self.number("longestDelay", LONGEST_DELAYS.get(self.kind, 30.0))

    @property
    def application_ppm(self) -> int:
        """The platform's fee for a connected account: its own option, else the tenant's plan."""
        return round(self.number("applicationFee") * 1_000_000) or self.plan_ppm

    def number(self, option: str, default: float = 0.0) -> float:
        """An option as a number ≥ 0; `default` if the value is no such number."""
        try:
            value = float(self.options.get(option, default))
        except (TypeError, ValueError):
            return default
        return value if 0 <= value < 1e9 else default


class Processor(Protocol):
    """A processor's client, one per endpoint and event loop. An async context manager: opens on entering, closes on leaving."""

    kind: ClassVar[str]
    polled: ClassVar[bool]  # whether it has a health call

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...

    async def send(self, order: Order, account: Account) -> Outcome:
        """Send a payment. Processor errors are returned as outcomes, never raised; cancellation leaves the outcome unknown."""

    async def look_up(self, order: Order, account: Account) -> Outcome:
        """Look up whether it is booked: BOOKED, NOT_BOOKED (yet), or UNKNOWN."""

    async def health(self, account: Account) -> Health | None:
        """Call the health endpoint; None without a usable answer (rate limited, no answer)."""


@runtime_checkable
class CanRefund(Protocol):
    """Kinds that support refunds: `issubclass(KINDS[kind], CanRefund)`."""

    async def refund(self, order: RefundOrder, account: Account) -> Outcome:
        """Refund, once per refund id."""

    async def look_up_refund(self, order: RefundOrder, account: Account) -> Outcome:
        """Look up a refund: BOOKED (returned), NOT_BOOKED (yet), DECLINED, or UNKNOWN."""


@runtime_checkable
class ShowsBooks(Protocol):
    """Kinds whose records can be listed: `issubclass(KINDS[kind], ShowsBooks)`."""

    def records(self, account: Account, since: datetime, until: datetime) -> AsyncIterator[ProcessorRecord]:
        """List bookings with `requested_at` from `since` to `until`, both inclusive. Raises Unanswered."""


@runtime_checkable
class HasKeys(Protocol):
    """Kinds that need API keys: `issubclass(KINDS[kind], HasKeys)`."""

    async def whose(self, account: Account) -> str:
        """The processor's id of the account that the keys belong to. Raises Unanswered."""


class Unanswered(Exception):
    """A processor did not answer, or not completely."""


class NotThere(Exception):
    """The processor has no object with this id."""
