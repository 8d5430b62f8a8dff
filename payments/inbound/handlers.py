"""Registry of handlers of inbound events, by type, and what handlers get, return and raise."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

import msgspec
from psycopg import AsyncConnection

from payments.processors.base import Account, Processor


class ProcessorEvent(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A claimed event of a processor. Its body holds the object as it was at `created`; only the processor knows its state now."""

    tenant_id: int
    id: int  # of the row
    account: Account
    event_id: str
    type: str  # such as payment_intent.succeeded
    object_id: str
    object_account: str  # the connected account that the event belongs to; "" for the processor's own account
    livemode: bool
    created: datetime  # by the processor's clock
    received_at: datetime
    received_for: float  # seconds
    body: bytes
    attempt: int  # the fence
    tries: int  # including this one, since it was received or replayed

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
    """The correlation id in the metadata that we gave the object; None for objects that others created at the processor."""
    metadata = object.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("registry_tenant") != str(tenant_id):
        return None
    try:
        return UUID(metadata.get("registry_payment"))
    except (ValueError, TypeError, AttributeError):
        return None


class Effect(msgspec.Struct, frozen=True):
    """What an event changes.

    `write` runs on the connection and in the transaction that marks the event as done: both are committed or neither, and it may
    run again if they were not. Other events of the tenant may share the transaction. `after` runs after the commit, for live
    messages; a crash may lose it.
    """

    outcome: str  # one or two words for operators
    payment_id: int | None = None  # the payment whose page shows the event
    write: Callable[[AsyncConnection], Awaitable[object]] | None = None
    after: Callable[[], Awaitable[object]] | None = None
    touches: tuple[
        UUID, ...
    ] = ()  # correlation ids of the payments that `write` changes: they are locked before any write


class RetryLater(Exception):
    """The event cannot be handled now: another worker has leased the object or not stored it yet, or the processor is unavailable.
    The text says why."""

    def __init__(self, why: str, *, patient: bool = False) -> None:
        self.patient = patient  # an outage of the processor: retry for a day
        super().__init__(why)


class NotFoundYet(RetryLater):
    """The payment is not known here, or the object not at the processor, so far. If that lasts, the event is ignored."""

    def __init__(self, why: str = "there is no such payment yet") -> None:
        super().__init__(why)


# Fetches the object's current state from the processor (no transaction is open) and returns what to write. It may run twice, and
# for events in any order: the current state counts, not the one in the event.
type Handler = Callable[[ProcessorEvent, Processor], Awaitable[Effect]]

HANDLERS: dict[str, Handler] = {}  # by prefix of the event's type, such as "payment_intent."


def handler_of(kind: str) -> Handler | None:
    """The handler with the longest prefix that matches; None if there is none."""
    prefixes = [prefix for prefix in HANDLERS if kind.startswith(prefix)]
    return HANDLERS[max(prefixes, key=len)] if prefixes else None
