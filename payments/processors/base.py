"""What every kind of processor offers, and the words for what came of it. One kind, one file, one identical shape."""

from collections.abc import AsyncIterator
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Protocol, Self, runtime_checkable
from uuid import UUID

import msgspec

from registry.tenants.encryption import unseal

AMOUNT_DIFFERS = (
    "amount_differs"  # code of an UNKNOWN: it took money, but not what it was asked for; no question changes that
)
LONGEST_DELAYS = {"stripe": 120.0}  # seconds, where it is not 30; Stripe's own library waits for 80 s


class Result(StrEnum):
    """What is known after a send or a look-up."""

    BOOKED = "booked"
    DECLINED = "declined"  # for good: another try would get the same answer
    NOT_BOOKED = "not_booked"  # for certain, for this send; a look-up's NOT_BOOKED only means "not yet"
    UNKNOWN = "unknown"  # it may have been booked, or may still be
    REQUIRES_ACTION = "requires_action"  # it waits there for the payer or the merchant
    CANCELED = "canceled"  # it was canceled there and will never be booked


WORKED = frozenset({Result.BOOKED, Result.REQUIRES_ACTION, Result.CANCELED})


class Outcome(msgspec.Struct, frozen=True):
    """The answer of a processor, and what it says about the processor, for routing."""

    result: Result
    code: str = ""
    healthy: bool = True  # False: the processor did not do its work, whether for this payment's sake or for all
    turned_away: bool = False  # it is this account that it refuses: nothing is said of the processor
    outage: bool = False  # it is the processor that cannot, whoever asks
    retry_after: float = 0.0  # seconds that the processor asked for
    reference: str = ""  # what the processor calls it
    fee: int | None = None  # minor units that it kept, where it says; else the account's share is taken
    action: dict[str, Any] | None = None  # REQUIRES_ACTION: what is to be done, for the payment page

    @property
    def works(self) -> bool:
        """Whether the processor did its work. A refused payment, or account, proves neither that nor its opposite."""
        return self.healthy and self.result in WORKED


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A payment on its way to a processor."""

    correlation_id: UUID
    amount: int  # minor units
    currency: str  # ISO 4217
    requested_at: datetime  # stamped once, at dispatch; milliseconds: with the payment it names a decision and its keys
    tenant_id: int = 0
    description: str = ""
    method: dict[str, Any] | None = None  # how it is paid, as the sender said
    reference: str = ""  # what the processor calls it, from an earlier answer
    canceling: bool = False  # whoever looks it up cancels it, if it is not booked
    attempt: int = 0  # its number


class Debt(msgspec.Struct, frozen=True, kw_only=True):
    """A refund on its way to the processor that booked the payment."""

    refund_id: UUID
    payment_id: UUID  # the payment's correlation id
    payment_reference: str
    amount: int  # minor units
    currency: str  # ISO 4217
    reason: str
    requested_at: datetime  # stamped when it is sent first, and again only when that was certainly never given back
    tenant_id: int
    reference: str = ""  # what the processor calls the refund, from an earlier answer


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A booking in a processor's own books, for comparison with ours."""

    correlation_id: UUID | None  # None: it carries no id of ours
    reference: str
    amount: int  # minor units
    currency: str
    refunded: int
    requested_at: datetime


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
    mode: str = "sandbox"  # of its tenant
    sealed: bytes | None = None
    plan_ppm: int = 0  # parts per million of the amount that its tenant's plan leaves with us, through Connect
    patience_ms: int = 300  # of its tenant: for how long a lower fee is worth waiting

    @property
    def secrets(self) -> dict[str, Any]:
        """Its keys, in the clear for as long as they are used. Raises registry.tenants.encryption.Sealed."""
        return unseal(self.sealed, place=f"processor {self.id}")

    @property
    def only_by_name(self) -> bool:
        """Routing leaves it out: payments go there if they ask for it by name."""
        return self.options.get("onlyByName") is True

    @property
    def longest_delay(self) -> float:
        """Seconds after which the processor can no longer book what it was sent: only then does 404 mean no."""
        return self.number("longestDelay", LONGEST_DELAYS.get(self.kind, 30.0))

    @property
    def application_ppm(self) -> int:
        """What we keep of a payment to a connected account: its own option, else what its tenant's plan says."""
        return round(self.number("applicationFee") * 1_000_000) or self.plan_ppm

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


@runtime_checkable
class GivesBack(Protocol):
    """What a kind offers besides where money can be given back: `issubclass(KINDS[kind], GivesBack)`."""

    async def refund(self, debt: Debt, account: Account) -> Outcome:
        """Give money back, once per refund id."""

    async def look_up_refund(self, debt: Debt, account: Account) -> Outcome:
        """Ask whether it was given back: BOOKED, NOT_BOOKED (yet), DECLINED, or UNKNOWN."""


@runtime_checkable
class ShowsBooks(Protocol):
    """What a kind offers besides where its books can be read: `issubclass(KINDS[kind], ShowsBooks)`."""

    def records(self, account: Account, since: datetime, until: datetime) -> AsyncIterator[Record]:
        """What it booked with `requested_at` from `since` to `until`, both inclusive. Raises Unanswered."""


@runtime_checkable
class HasKeys(Protocol):
    """What a kind offers besides that is asked with keys: `issubclass(KINDS[kind], HasKeys)`."""

    async def whose(self, account: Account) -> str:
        """The processor's name of the account that the keys are of. Raises Unanswered."""


class Unanswered(Exception):
    """A processor's books could not be read to the end."""


class NotThere(Exception):
    """The processor has no object with this id."""
