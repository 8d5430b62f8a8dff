"""Numbered events of the test double, as websockets and long polls read them."""

from typing import Any

import msgspec

from registry_client.testing.changes import Changes
from registry_client.testing.wire import Answer, Asked, Json, answer


class FakeEvent(msgspec.Struct, frozen=True):
    """One event: its number in the whole stream, and in that of its object."""

    number: int
    subject: str
    sequence: int
    body: Json


class FakeStream:
    """All events of payments, or of jobs."""

    def __init__(self, kind: str, changes: Changes) -> None:
        self.kind = kind
        self._changes = changes
        self._events: list[FakeEvent] = []

    def add(self, subject: str, sequence: int, body: Json) -> None:
        self._events.append(FakeEvent(len(self._events) + 1, subject, sequence, body))
        self._changes.notify()

    @property
    def number(self) -> int:
        """The number of the latest event."""
        return len(self._events)

    def of_subject(self, subject: str, after: int = 0) -> list[FakeEvent]:
        return [event for event in self._events if event.subject == subject and event.sequence > after]

    def since(self, after: int) -> list[FakeEvent]:
        return self._events[after:]

    def poll(self, asked: Asked, subject: str) -> Answer:
        """The answer of a long poll; None while there is nothing to say."""
        after = asked.number("after", 0)
        found = self.of_subject(subject, after)
        if not found and not asked.last:
            return None
        events = [self.message(event.sequence, event.body) for event in found]
        return answer({"events": events, "next": found[-1].sequence if found else after})

    def message(self, sequence: int, body: Json) -> dict[str, Any]:
        return {"type": self.kind, "sequence": sequence, self.kind: body}
