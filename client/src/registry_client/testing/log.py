"""A partition of the test double's queue: an ordered log of messages, and how far each group has read it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from registry_client.testing.wire import Json, iso, now

RETRY_LIMIT = 3  # further tries of a failed message
NO_LEASE = "Invalid or expired lease"
_NEVER = datetime.min.replace(tzinfo=UTC)


class FakePartition:
    """The messages of a partition, and its readers by group."""

    def __init__(self, queue: str, name: str) -> None:
        self.queue, self.name, self.id = queue, name, str(uuid4())
        self.messages: list[Json] = []
        self._readers: dict[str, Reader] = {}

    def find(self, transaction_id: str) -> Json | None:
        return next((one for one in self.messages if one["transactionId"] == transaction_id), None)

    def append(self, transaction_id: str, data: Any, trace_id: str | None) -> Json:
        named = {"id": str(uuid4()), "transactionId": transaction_id, "traceId": trace_id}
        self.messages.append({**named, "data": data, "producerSub": None, "createdAt": iso(now())})
        return self.messages[-1]

    def reader(self, group: str, *, new: bool = False) -> "Reader":
        """The group's reader; that of a `new` group begins after the messages that are there."""
        if group not in self._readers:
            self._readers[group] = Reader(self, group, len(self.messages) if new else 0)
        return self._readers[group]

    @property
    def readers(self) -> list["Reader"]:
        return list(self._readers.values())

    def expire_leases(self) -> None:
        for reader in self._readers.values():
            reader.lease_until = _NEVER


class Reader:
    """One group's place in a partition, and its lease."""

    def __init__(self, partition: FakePartition, group: str, cursor: int) -> None:
        self._partition, self._group = partition, group
        self._cursor = cursor  # messages that are done
        self._leased, self._lease, self._failures = 0, "", 0
        self.lease_until = _NEVER
        self.dead: list[Any] = []

    @property
    def waiting(self) -> list[Json]:
        return self._partition.messages[self._cursor :]

    @property
    def is_free(self) -> bool:
        return self.lease_until < now() and bool(self.waiting)

    def holds(self, lease: str) -> bool:
        return self._lease == lease and self.lease_until >= now()

    def lease(self, lease: str, size: int, seconds: int, *, auto_ack: bool) -> list[Json]:
        """Lease the next messages, or complete them at once."""
        found = self.waiting[:size]
        if auto_ack:
            self._cursor += len(found)
        else:
            self._lease, self._leased = lease, len(found)
            self.lease_until = now() + timedelta(seconds=seconds)
        own = {"partitionId": self._partition.id, "partition": self._partition.name, "consumerGroup": self._group}
        return [{**one, **own, "leaseId": "" if auto_ack else lease} for one in found]

    def fault(self, ack: Json) -> str | None:
        """Why an ack is refused."""
        if not self.holds(ack.get("leaseId", "")):
            return NO_LEASE
        return None if self._place(ack) is not None else "Message not found"

    def _place(self, ack: Json) -> int | None:
        leased = self.waiting[: self._leased]
        names = [one["transactionId"] for one in leased]
        return names.index(ack["transactionId"]) if ack["transactionId"] in names else None

    def settle(self, ack: Json) -> Json:
        """Act on an ack that has no fault; what the answer says about it."""
        place, status = self._place(ack) or 0, ack.get("status", "completed")
        dead = status == "dlq" or (status == "failed" and self._failures >= RETRY_LIMIT)
        done = place + (1 if dead or status in ("completed", "success") else 0)
        if dead:
            self.dead.append(self.waiting[place]["data"])
        self._failures = self._failures + 1 if status == "failed" and not dead else 0
        self._cursor, self._leased = self._cursor + done, self._leased - done
        released = not self._leased or status in ("failed", "retry")
        if released:
            self.lease_until = _NEVER
        return {"leaseReleased": released, "dlq": dead}
