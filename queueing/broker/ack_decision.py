"""What follows from the acks of one leased consumer: new cursor, retry, dead letters. Pure functions, no database."""

from collections.abc import Sequence
from uuid import UUID

import msgspec

from queueing.broker.ack_request import COMPLETED, DEAD, FAILED, RETRY, AckOutcome
from queueing.broker.consumers import CursorUpdate, NewDeadLetter

BEHIND = "An earlier message of this partition failed; this one will be delivered again"
EXHAUSTED = "Retries exhausted"


class LeasedConsumer(msgspec.Struct, frozen=True):
    """A leased consumer whose row is locked, and how its queue treats failures."""

    lease: UUID
    partition: int
    group: int
    group_name: str
    cursor: int
    delivered: int
    buried: int
    attempt: int
    retry_limit: int
    retry_delay_ms: int
    dead_letter_after_retries: bool
    dead_letter_queue: bool
    dead: frozenset[int] = frozenset()  # numbers of dead letters beyond the cursor


class NumberedAck(msgspec.Struct, frozen=True):
    """An ack of the message with number `seq` in its partition."""

    index: int
    seq: int
    status: str
    error: str | None = None


class Decision(msgspec.Struct):
    """What to write for one consumer, and the outcome of each ack."""

    update: CursorUpdate
    dead: list[NewDeadLetter]
    outcomes: list[AckOutcome]


def decide(consumer: LeasedConsumer, acks: Sequence[NumberedAck], *, at_once: bool = False) -> Decision:
    """What follows from acks. With `at_once` a failed message becomes a dead letter without another try.

    The cursor passes completed and dead messages, up to the first message that is to be tried again: no later ack in the
    same request gets past that one.
    """
    exhausted = at_once or (consumer.dead_letter_after_retries and consumer.attempt >= consumer.retry_limit)
    ordered = sorted(acks, key=lambda one: one.seq)
    dead = [one for one in ordered if one.status == DEAD or (one.status == FAILED and exhausted)]
    again = [one for one in ordered if one.status in (FAILED, RETRY) and one not in dead]
    barrier = again[0].seq if again else consumer.delivered + 1
    passed = {one.seq for one in dead}
    kept = {one.seq for one in dead if consumer.dead_letter_queue or one.status == DEAD}
    cursor = max([consumer.cursor, *(one.seq for one in ordered if one.status == COMPLETED and one.seq < barrier)])
    while cursor + 1 in passed or cursor + 1 in consumer.dead:
        cursor += 1
    failed_now = any(one.status == FAILED for one in again)
    update = CursorUpdate(
        consumer.partition,
        consumer.group,
        cursor=cursor,
        buried=max([consumer.buried, *passed]),
        attempt=consumer.attempt + 1 if failed_now else consumer.attempt if cursor == consumer.cursor else 0,
        release=bool(again) or cursor >= consumer.delivered,
        wait=consumer.retry_delay_ms / 1000 if failed_now else 0.0,
    )
    return Decision(
        update,
        [_dead_letter(consumer, one, kept) for one in dead if one.seq in kept or one.seq > cursor],
        [_outcome(one, barrier, kept, release=update.release) for one in ordered],
    )


def _dead_letter(consumer: LeasedConsumer, one: NumberedAck, kept: set[int]) -> NewDeadLetter:
    error = one.error or EXHAUSTED
    return NewDeadLetter(
        consumer.partition, consumer.group, one.seq, error, consumer.attempt + 1, dropped=one.seq not in kept
    )


def _outcome(one: NumberedAck, barrier: int, kept: set[int], *, release: bool) -> AckOutcome:
    error = BEHIND if one.status == COMPLETED and one.seq > barrier else None
    return AckOutcome(one.index, error, release, one.seq in kept, more=release)
