"""Acknowledgements as data: what a reader reports about its messages, checked before any statement, and the results."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from queueing.broker.ids import partition_number
from queueing.broker.leases import parse_lease
from queueing.models.broker import QUEUE_MODE

COMPLETED, FAILED, DEAD, RETRY = "completed", "failed", "dlq", "retry"
STATUSES = {"completed": COMPLETED, "success": COMPLETED, "failed": FAILED, "dlq": DEAD, "retry": RETRY}

NO_LEASE = "Invalid or expired lease"
NOT_FOUND = "Message not found"


class Ack(msgspec.Struct, frozen=True):
    """What a reader reports about one message."""

    transaction_id: str
    partition_id: str
    status: str = COMPLETED
    lease_id: str = ""
    group: str = QUEUE_MODE
    error: str | None = None


class CheckedAck(msgspec.Struct, frozen=True):
    """A well-formed ack; `index` is its place in the request."""

    index: int
    partition: int
    group: str
    lease: UUID
    transaction_id: str
    status: str
    error: str | None

    @property
    def consumer(self) -> tuple[int, str, UUID]:
        """The leased consumer that the ack is about."""
        return self.partition, self.group, self.lease


class AckOutcome(msgspec.Struct, frozen=True):
    """What the database made of one ack."""

    index: int
    error: str | None
    lease_released: bool
    dead_letter: bool = False
    more: bool = False  # the lease ended and the partition has messages left to read


class Acked(msgspec.Struct, rename="camel"):
    """The answer to one ack (queue contract section 1.1)."""

    index: int
    transaction_id: str
    success: bool
    error: str | None = None
    queue_name: str | None = None
    partition_name: str | None = None
    lease_released: bool = False
    dlq: bool = False

    def set(self, outcome: AckOutcome) -> None:
        self.success, self.error = outcome.error is None, outcome.error
        self.lease_released, self.dlq = outcome.lease_released, outcome.dead_letter


def check(tenant_id: int, acks: Sequence[Ack]) -> tuple[list[Acked], list[CheckedAck]]:
    """One answer per ack, with an error where the ack is malformed; and the well-formed acks."""
    results = [Acked(index, one.transaction_id, success=False) for index, one in enumerate(acks)]
    checked = []
    numbers: dict[str, int | None] = {}
    leases: dict[str, UUID | None] = {}
    for index, one in enumerate(acks):
        if one.partition_id not in numbers:
            numbers[one.partition_id] = partition_number(tenant_id, one.partition_id)
        if one.lease_id not in leases:
            leases[one.lease_id] = parse_lease(one.lease_id)
        partition, lease = numbers[one.partition_id], leases[one.lease_id]
        if one.status not in STATUSES:
            results[index].error = f"status wants one of {', '.join(STATUSES)}"
        elif partition is None:
            results[index].error = NOT_FOUND
        elif lease is None:
            results[index].error = NO_LEASE if one.lease_id else "leaseId is required: an ack is fenced by its lease"
        else:
            status = STATUSES[one.status]
            checked.append(CheckedAck(index, partition, one.group, lease, one.transaction_id, status, one.error))
    return results, checked
