"""Sources of webhook events, registered by name. The app that owns the events registers its own; docs/decisions/028."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from queueing.outbound.messages import new_message_id
from registry.data import database
from registry.data.stream import EventStream


class WebhookEvent(Protocol):
    """A row of a source's `events` statement."""

    @property
    def position(self) -> int: ...

    @property
    def subject(self) -> UUID:
        """Id of the object that the event is about."""

    @property
    def type(self) -> str: ...

    @property
    def at(self) -> datetime: ...

    def data(self) -> dict[str, Any]:
        """The `data` object of the message; computed only if an endpoint subscribes to the type."""


@dataclass(frozen=True, kw_only=True)
class EventSource:
    """Numbered events of one kind of object, and how they become webhook messages."""

    stream: EventStream
    noun: str  # what an event is about, for pages: "payment"
    subject_field: str  # name of its id in the API: "correlationId"
    page: str  # name of the object's page, which takes its id; empty: it has none
    types: tuple[str, ...]
    unread: str  # SQL: (limit) → tenant, position, latest, endpoint ids; endpoints with events they have not read
    events: str  # SQL: (tenant, after, upto) → rows for `event`, in order of position
    event: Callable[[database.Row], WebhookEvent]
    owed: str = ""  # SQL: the tenant of an owed callback, if there is one; empty: the source has no callbacks
    callbacks: str = ""  # SQL: (limit) → tenant, URL and row for `event` of owed callbacks, which it marks as made
    message_id: Callable[[WebhookEvent], str] = lambda _: new_message_id()
    examples: tuple[str, str, str]  # types of an object's first three events in order, for the test kit
    example: Callable[
        [str, UUID, int, datetime], dict[str, Any]
    ]  # (type, subject, sequence, at) → `data` of an invented event


SOURCES: dict[str, EventSource] = {}


def register(source: EventSource) -> None:
    SOURCES[source.stream.name] = source


def types() -> tuple[str, ...]:
    """The event types of all sources."""
    return tuple(type for source in SOURCES.values() for type in source.types)


def source_of(type: str) -> EventSource | None:
    """The source of an event type; None for messages of webhooks themselves, such as tests."""
    return next((source for source in SOURCES.values() if type in source.types), None)


def example_source() -> EventSource:
    """The source whose events the test kit invents: that of the uppermost app, which registers last."""
    return next(reversed(SOURCES.values()))


async def latest(tenant_id: int) -> dict[str, int]:
    """The number of the tenant's latest event, by source."""
    return {name: (await source.stream.positions([tenant_id])).get(tenant_id, 0) for name, source in SOURCES.items()}
