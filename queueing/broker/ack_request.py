"""Acknowledgements as data: what a reader reports about its messages, checked before any statement, and the results."""

from collections.abc import Sequence
from typing import NamedTuple
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


class LeasedBy(NamedTuple):
    """A leased consumer as its reader names it."""

    partition: int
    group: str
    lease: UUID


class CheckedAck(msgspec.Struct, frozen=True):
    """A well-formed ack; `index` is its place in the request. Acks of one consumer share the object that names it."""

    index: int
    consumer: LeasedBy
    transaction_id: str
    status: str
    error: str | None

    @property
    def partition(self) -> int:
        return self.consumer.partition


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
    results = [Acked(index, one.transaction_id, False) for index, one in enumerate(acks)]
    checked = []
    consumers: dict[tuple[str, str, str], LeasedBy | str] = {}
    for index, one in enumerate(acks):
        key = (one.partition_id, one.lease_id, one.group)
        consumer = consumers.get(key)
        if consumer is None:
            consumer = consumers[key] = _consumer(tenant_id, *key)
        status = STATUSES.get(one.status)
        if status is None:
            results[index].error = f"status wants one of {', '.join(STATUSES)}"
        elif isinstance(consumer, str):
            results[index].error = consumer
        else:
            checked.append(CheckedAck(index, consumer, one.transaction_id, status, one.error))
    return results, checked


def _consumer(tenant_id: int, partition_id: str, lease_id: str, group: str) -> LeasedBy | str:
    """The consumer, or the error of acks that name none."""
    partition, lease = partition_number(tenant_id, partition_id), parse_lease(lease_id)
    if partition is None:
        return NOT_FOUND
    if lease is None:
        return NO_LEASE if lease_id else "leaseId is required: an ack is fenced by its lease"
    return LeasedBy(partition, group, lease)
