"""Claimed messages that cannot be delivered: poison messages, which kill their readers, and payloads that cannot be decrypted."""

import logging
from collections.abc import Sequence
from uuid import UUID

from queueing.broker import consumers, traffic
from queueing.broker.catalog import SQL
from queueing.broker.claim import ClaimedRow
from queueing.broker.consumers import CursorUpdate, NewDeadLetter
from registry.data import database

log = logging.getLogger(__name__)

KILLED = "no reader acked it: the lease expired on every try"


async def dead_letter_poison(rows: Sequence[ClaimedRow], lease: UUID | None) -> None:
    """Make dead letters of messages that were delivered alone on every try, and whose readers all let the lease expire."""
    for row in rows:

        async def once(row: ClaimedRow = row) -> None:
            seq = row.seq or 0
            params = {"tenant": row.tenant_id, "partition": row.partition_id, "group": row.group_id, "lease": lease}
            async with database.transaction() as conn:
                locked = await database.rows(conn, SQL["lock_poisoned"], params)
                if not locked:
                    return
                if locked[0][0]:
                    dead = NewDeadLetter(row.partition_id, row.group_id, seq, KILLED, row.attempts)
                    await consumers.add_dead_letters(conn, row.tenant_id, [dead])
                passed = CursorUpdate(row.partition_id, row.group_id, cursor=seq, buried=seq, attempt=0, release=True)
                await consumers.update(conn, row.tenant_id, [passed])

        await database.retrying(once)
        traffic.count(row.tenant_id, row.queue_id, buried=1)
        log.warning("a message killed its readers", extra={"transaction_id": row.transaction_id})


async def postpone_undecryptable(rows: Sequence[tuple[ClaimedRow, str]], lease: UUID | None) -> None:
    """Postpone the partitions of messages that cannot be decrypted; no attempt is counted, for the key may come back.

    Messages claimed without a lease are completed already, so they become dead letters. `rows`: each with its error.
    """
    tenant_id = rows[0][0].tenant_id
    if lease:
        params = {"tenant": tenant_id, "lease": lease, "partitions": [row.partition_id for row, _ in rows]}
        await database.fetch(SQL["postpone"], params)
    else:
        dead = [
            NewDeadLetter(row.partition_id, row.group_id, row.seq or 0, error, row.attempts + 1) for row, error in rows
        ]
        async with database.transaction() as conn:
            await consumers.add_dead_letters(conn, tenant_id, dead)
    log.error("messages cannot be decrypted", extra={"messages": len(rows), "error": rows[0][1]})
