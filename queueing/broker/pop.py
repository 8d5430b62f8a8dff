"""Pop messages: lease partitions of a group, and wait for messages where none are due (long poll)."""

import asyncio
import time
from collections.abc import Sequence

from queueing.broker import claim as claims
from queueing.broker import consumers, long_polls, maintenance, poison, sources, traffic
from queueing.broker.claim import Claim, ClaimedRow
from queueing.broker.ids import new_id
from queueing.broker.next_due import MISSED, next_due
from queueing.broker.pop_result import Popped, decrypted, popped
from queueing.broker.sources import Target
from queueing.models.broker import QUEUE_MODE

ROUNDS = 5  # claims in a row that may find only expired, invisible or poison messages


async def pop(
    tenant_id: int, target: Target, *, size: int = 1, partitions: int = 1, auto_ack: bool = False, wait: float = 0
) -> Popped:
    """Lease up to `partitions` partitions with up to `size` messages in all, waiting for them `wait` seconds at most.

    With `auto_ack` there is no lease: messages are completed as they are delivered. Raises Unavailable (503). Cancelling
    releases what was leased meanwhile.
    """
    deadline = time.monotonic() + wait
    lease = None if auto_ack else new_id()
    woken_at = 0.0
    looked_twice = False
    while True:
        if (await maintenance.modes(tenant_id)).pop:
            return Popped(lease)
        create = wait > 0 or target.group != QUEUE_MODE
        found, waits_for = await sources.find(tenant_id, target, create=create)
        claim = Claim(found, size, partitions, lease)
        looked_at = time.monotonic()
        with long_polls.parked().park(waits_for, one_partition=bool(target.partition)) as parked:
            if found and (result := await _claim_messages(claim, target.group)):
                return result
            if (left := deadline - time.monotonic()) > 0:
                due, existing = await next_due(found, woken_at) if found else (long_polls.RECHECK, 0)
                if existing < len(found):
                    sources.forget(tenant_id, target, found)
                    continue
                if time.monotonic() - looked_at > MISSED and not looked_twice:  # on a busy machine
                    looked_twice = True
                    continue
                looked_twice = False
                if await parked.wait(min(left, long_polls.RECHECK, due)):
                    woken_at = time.monotonic()
        if left <= 0 and (not found or await sources.exist(tenant_id, target, found)):
            break
    for source in found:
        traffic.count(tenant_id, source.queue.id, pop_requests=1, empty_pops=1)
    return Popped(lease)


async def _claim_messages(claim: Claim, group: str) -> Popped | None:
    """Claim what is due now. Where all that was claimed is expired, not visible yet or poison, handle that and claim again."""
    for _ in range(ROUNDS):
        rows = await claims.submit(claim)
        if not rows:
            return None
        try:
            if result := await _deliver(claim, group, rows):
                return result
        except asyncio.CancelledError:
            claims.release_soon(claim, rows)
            raise
        except (
            Exception
        ):  # such as a payload that cannot be decrypted: not the reader's fault, so no attempt is counted
            await claims.release(claim, rows)
            raise
    return None


async def _deliver(claim: Claim, group: str, rows: Sequence[ClaimedRow]) -> Popped | None:
    if claim.lease is None or any(row.poison or row.seq is None for row in rows):
        rows = await _readable(claim, rows)
    messages = await decrypted(claim, rows)
    return popped(claim, group, messages) if messages else None


async def _readable(claim: Claim, rows: Sequence[ClaimedRow]) -> list[ClaimedRow]:
    """The rows that are messages to deliver. Poison becomes dead letters; partitions that are not leased are rescheduled."""
    if dead := [row for row in rows if row.poison and row.seq is not None]:
        await poison.dead_letter_poison(dead, claim.lease)
    unleased = [row for row in rows if row.seq is None or row.poison or claim.lease is None]
    await consumers.reschedule([(row.tenant_id, row.partition_id, row.group_id) for row in unleased])
    return [row for row in rows if row.seq is not None and not row.poison]
