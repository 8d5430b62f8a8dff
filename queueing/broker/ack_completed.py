"""Group commit of acks that are all `completed`: one statement moves the cursors for many requests."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from queueing.broker.ack_request import AckOutcome, CheckedAck
from queueing.broker.catalog import SQL
from registry.data import database
from registry.data.arrays import Bigints, Texts, Uuids
from registry.data.batching import Batcher, Family
from registry.data.loop import PerLoop

MAX_ROWS = 5000  # acks per statement


type Key = tuple[int, int, str, UUID]  # tenant, partition, group, lease


class CompletedAcks(NamedTuple):
    """The acks of one request."""

    tenant_id: int
    acks: Sequence[CheckedAck]


async def complete(tenant_id: int, acks: Sequence[CheckedAck]) -> list[AckOutcome]:
    """One outcome per ack, in order. Raises Unavailable (503)."""
    return await _batchers.get().of(tenant_id).submit(CompletedAcks(tenant_id, acks))


async def write_batch(requests: Sequence[CompletedAcks]) -> list[list[AckOutcome]]:
    keys, owners = _number_consumers(requests)
    params = {
        "tenants": Bigints([key[0] for key in keys]),
        "partitions": Bigints([key[1] for key in keys]),
        "names": Texts([key[2] for key in keys]),
        "leases": Uuids([key[3].bytes for key in keys]),
        "owners": Bigints(owners),
        "transactions": Texts([one.transaction_id for request in requests for one in request.acks]),
    }
    refused: dict[int, str] = {}  # by number of the ack, from 1
    released: dict[int, bool] = {}  # by number of the consumer: whether it has messages left to read
    # Not repeated: the first try may have been committed, and the second would be refused. The caller asks again, and what is
    # done already succeeds.
    for item, consumer, reason in await database.fetch(SQL["complete"], params, repeatable=False):
        if item:
            refused[item] = reason
        else:
            released[consumer] = reason == "more"
    outcomes, item = [], 0
    for request in requests:
        mine = []
        for one in request.acks:
            owner, item = owners[item], item + 1
            mine.append(AckOutcome(one.index, refused.get(item), owner in released, more=released.get(owner, False)))
        outcomes.append(mine)
    return outcomes


def _number_consumers(requests: Sequence[CompletedAcks]) -> tuple[list[Key], list[int]]:
    """The consumers in sorted order, and for each ack the number of its consumer, from 1.

    The consumers' rows are locked in this order, as by everybody who locks several.
    """
    seen: dict[Key, int] = {}
    owners: list[int] = []
    for request in requests:
        consumer = None
        for one in request.acks:
            if one.consumer is not consumer:
                consumer = one.consumer
                owner = seen.setdefault((request.tenant_id, *consumer), len(seen))
            owners.append(owner)
    keys = sorted(seen)
    number = {seen[key]: place for place, key in enumerate(keys, 1)}
    return keys, [number[owner] for owner in owners]


def _batcher() -> Batcher[CompletedAcks, list[AckOutcome]]:
    return Batcher(write_batch, max_rows=MAX_ROWS, weigh=lambda request: len(request.acks))


_batchers: PerLoop[Family[CompletedAcks, list[AckOutcome]]] = PerLoop(lambda: Family(_batcher), close=Family.finish)
