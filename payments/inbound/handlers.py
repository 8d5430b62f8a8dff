"""Who handles which inbound events. A room for names: whoever owns the objects puts its handler into HANDLERS."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from payments.processors.base import Account, Processor


class Event(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """An inbound event in a worker's hands. Its object is as it was then; what it is now, only the processor knows."""

    tenant_id: int
    id: int  # of our row
    account: Account
    event_id: str
    type: str  # such as payment_intent.succeeded
    object_id: str
    object_account: str  # the connected account that the event is of; "" for the processor's own
    livemode: bool
    created: datetime  # by the processor's clock
    received_at: datetime
    received_for: float  # seconds
    body: bytes
    attempt: int  # the fence
    tries: int  # with this one, since it was received or replayed

    @cached_property
    def object(self) -> dict[str, Any]:
        """`data.object` of the body."""
        return object_of(self.body)


class _Data(msgspec.Struct):
    object: dict[str, Any] = {}


class _Body(msgspec.Struct):
    data: _Data = msgspec.field(default_factory=_Data)


def object_of(body: bytes) -> dict[str, Any]:
    return msgspec.json.decode(body, type=_Body).data.object


def label_of(tenant_id: int, object: dict[str, Any]) -> UUID | None:
    """The payment that the object was made for, by the metadata that we gave it; None for what others made there."""
    metadata = object.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("registry_tenant") != str(tenant_id):
        return None
    try:
        return UUID(metadata.get("registry_payment"))
    except (ValueError, TypeError, AttributeError):
        return None


class Effect(msgspec.Struct, frozen=True):
    """What is to be written because of an event. `write` runs in the transaction that marks the event as done, on its
    connection: both are committed, or neither, and it may run again if they were not. Other events of the tenant may share
    the transaction. `after` runs once that is committed, for news: it may be lost."""

    outcome: str  # for the operator, in a word or two
    payment_id: int | None = None  # whose page it belongs on
    write: Callable[[AsyncConnection], Awaitable[object]] | None = None
    after: Callable[[], Awaitable[object]] | None = None
    touches: tuple[
        UUID, ...
    ] = ()  # correlation ids of payments that `write` changes: they are locked before all writes


class Later(Exception):
    """It cannot be handled now, and will be a moment later: another worker has the object in hand, or has not written it
    down yet, or the processor is away. The text says which."""

    def __init__(self, why: str, *, patient: bool = False) -> None:
        self.patient = patient  # worth waiting for a day: it is somebody else who is away
        super().__init__(why)


class Missing(Later):
    """There is no such payment here, or no such object at the processor: it may be on its way. If it never comes, the event
    changes nothing of ours."""

    def __init__(self, why: str = "there is no such payment yet") -> None:
        super().__init__(why)


# Fetches what it must from the processor (no transaction is open), and says what to write. It may run twice, and for
# events in any order: the newest state of the object counts, not what the event says of it.
type Handler = Callable[[Event, Processor], Awaitable[Effect]]

HANDLERS: dict[str, Handler] = {}  # by the beginning of the event's type, such as "payment_intent."


def handler_of(kind: str) -> Handler | None:
    """The handler with the longest beginning that fits; None: nobody is interested."""
    fitting = [beginning for beginning in HANDLERS if kind.startswith(beginning)]
    return HANDLERS[max(fitting, key=len)] if fitting else None
