"""Requests of the queue that both halves share, and what a consumer does with a batch."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, TypedDict
from urllib.parse import quote

import msgspec

from registry_client.models.queue import Ack, Message, NewMessage, ack_of

API = "/api/v1"

type Start = Literal["all", "new"] | datetime


class ConsumerFields(TypedDict, total=False):
    """Optional arguments of a consumer; ConsumerOptions has their defaults."""

    group: str
    partition: str
    start: Start
    batch: int
    partitions: int
    wait: float
    lease: int


class ConsumerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a consumer pops and renews; times are seconds."""

    group: str | None = None
    partition: str | None = None
    start: Start | None = None  # of a new group
    batch: int = 10
    partitions: int | None = None
    wait: float = 5.0  # of one long poll, and so the longest time until `stop` is noticed
    lease: int = 60  # to which the lease is renewed while messages are handled


def pop_path(queue: str, partition: str | None) -> str:
    path = f"{API}/pop/queue/{quote(queue, safe='')}"
    return f"{path}/partition/{quote(partition, safe='')}" if partition else path


def operations_of(operations: Sequence[NewMessage | Ack]) -> dict[str, Any]:
    """The body of a transaction: neighbouring messages are one push."""
    found: list[dict[str, Any]] = []
    for one in operations:
        if isinstance(one, Ack):
            found.append({"type": "ack", **msgspec.to_builtins(one)})
        elif found and found[-1]["type"] == "push":
            found[-1]["items"].append(one)
        else:
            found.append({"type": "push", "items": [one]})
    return {"operations": found}


class Batch:
    """The messages of one pop, and what became of them."""

    def __init__(self, messages: list[Message]) -> None:
        self.messages = messages
        self.failed: dict[str, Ack] = {}  # by partition, which stops at its first failure
        self.lost = False  # the lease: others may have the messages
        self._completed: list[Ack] = []
        self._done: set[str] = set()

    def complete(self, message: Message) -> None:
        self._completed.append(ack_of(message))
        self._done.add(message.id)

    def fail(self, message: Message, error: str) -> None:
        self.failed[message.partition_id] = ack_of(message, "failed", error)

    def acks(self) -> list[Ack]:
        """The report: what was handled, and of each other partition the first message that was not, which returns the rest."""
        returned: dict[str, Ack] = {}
        for message in self.messages:
            if message.id not in self._done and message.partition_id not in self.failed:
                returned.setdefault(message.partition_id, ack_of(message, "retry"))
        return [*self._completed, *self.failed.values(), *returned.values()]
