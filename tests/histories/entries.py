"""The lines of a history file: what clients asked and heard, who was struck, and what was there at the end.

Times are seconds since the run began, by the clock of the process that recorded all of it. Amounts are minor units.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from tests.bed.journal import Moment


class Entry(msgspec.Struct, frozen=True, tag_field="entry"):
    pass


# -- While it ran ---------------------------------------------------------------------------------------------


class Operation(Entry, kw_only=True, frozen=True, tag="operation", omit_defaults=True):
    """A request over HTTP. Without a `status` its client never heard, and it may be carried out at any later time."""

    client: str
    method: str
    path: str
    query: dict[str, str] = {}
    key: str = ""  # Idempotency-Key
    asked: Any = None
    invoked: float
    completed: float
    status: int | None = None
    answer: Any = None


class Seen(Entry, kw_only=True, frozen=True, tag="seen"):
    """A message of the tenant's websocket. `position` counts within the tenant, `sequence` within the payment. `early`: it was
    sent before the service had read that this reader wants to resume, and is sent again by the resume."""

    reader: str
    connection: int
    at: float
    position: int
    payment: str
    sequence: int
    status: str
    early: bool = False


class Delivered(Entry, kw_only=True, frozen=True, tag="delivered"):
    """A webhook of a payment, as its receiver heard it; `id` is the same each time that it is sent."""

    at: float
    id: str
    type: str
    payment: str
    sequence: int
    status: str


class Struck(Entry, kw_only=True, frozen=True, tag="struck"):
    """A strike that was carried out, or why not."""

    name: str
    began: float
    healed: float
    left_out: str = ""


# -- At the end -----------------------------------------------------------------------------------------------


class Booked(Entry, kw_only=True, frozen=True, tag="booked"):
    """A booking in a processor's own books."""

    processor: str
    payment: str
    amount: int


class Returned(Entry, kw_only=True, frozen=True, tag="returned"):
    """A refund in a processor's own books."""

    processor: str
    payment: str
    refund: str
    amount: int


class StoredPayment(Entry, kw_only=True, frozen=True, tag="payment"):
    payment: str
    status: str
    sequence: int
    amount: int
    refunded: int
    processor: str


class SetAside(Entry, kw_only=True, frozen=True, tag="set aside"):
    """A write that was accepted while PostgreSQL was away, and that cannot be stored. `payment`: of a payment."""

    kind: str
    reason: str
    payment: str = ""
    amount: int = 0


class StoredRefund(Entry, kw_only=True, frozen=True, tag="refund"):
    refund: str
    payment: str
    status: str
    amount: int


class StoredEvent(Entry, kw_only=True, frozen=True, tag="event"):
    position: int
    payment: str
    sequence: int
    status: str
    kind: str


class Lines(Entry, kw_only=True, frozen=True, tag="lines"):
    """The ledger's lines of one payment for one cause: their sum by account, and how many there are of each."""

    payment: str
    processor: str
    cause: str
    account: str
    amount: int
    count: int


class StoredJob(Entry, kw_only=True, frozen=True, tag="job"):
    job: str
    status: str
    attempts: int


class Ran(Entry, kw_only=True, frozen=True, tag="ran"):
    """What a job's function wrote down."""

    moment: Moment


class DeadLetter(Entry, kw_only=True, frozen=True, tag="dead letter"):
    """A message of the queue that a group gave up."""

    group: str
    partition: str
    transaction: str


class End(Entry, kw_only=True, frozen=True, tag="end"):
    """`purged_until`: numbers of events up to there may be missing, by a purge. `waiting`: messages of the queue that nobody
    read. `lease`: seconds that a lease of the queue lasts at least. `differences`: that reconciliation with the processors found."""

    seed: int
    commit: str
    position: int
    purged_until: int
    summary: dict[str, Any]
    books: list[str]  # what check_books found
    differences: list[str] = []
    traces: list[str] = []  # lines of the service's log with a stack trace
    waiting: int
    lease: float
    surprises: list[str]  # answers that no client should get


type Line = (
    Operation
    | Seen
    | Delivered
    | Struck
    | Booked
    | Returned
    | StoredPayment
    | SetAside
    | StoredRefund
    | StoredEvent
    | Lines
    | StoredJob
    | Ran
    | DeadLetter
    | End
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


def write(path: Path, lines: Iterable[Line]) -> None:
    with path.open("wb") as file:
        file.writelines(_encode(line) + b"\n" for line in lines)


def read(path: Path) -> list[Line]:
    return [_decode(line) for line in path.read_bytes().splitlines()]
