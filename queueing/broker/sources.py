"""Where a pop reads: the groups of the queues that its target names, found or created, and checked for existence."""

from collections.abc import Sequence

import msgspec

from queueing.broker import catalog
from queueing.broker.catalog import SQL, GroupSubscription, QueueSettings
from queueing.models.broker import QUEUE_MODE
from registry.data import database
from registry.data.arrays import Bigints
from registry.data.batching import Batcher, Family
from registry.data.loop import PerLoop


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a pop asks for: a queue, one of its partitions, or all queues of a namespace or task."""

    queue: str = ""
    partition: str = ""
    namespace: str = ""
    task: str = ""
    group: str = QUEUE_MODE
    subscription: GroupSubscription = GroupSubscription()


class Source(msgspec.Struct, frozen=True):
    """A group of a queue to read for, in all partitions or in one."""

    tenant_id: int
    group_id: int
    queue: QueueSettings
    partition: int | None = None
    priority: int = 0


async def find(tenant_id: int, target: Target, *, create: bool) -> tuple[tuple[Source, ...], list[tuple[int, int]]]:
    """The sources of a target, and the (queue, group) pairs for which a long poll waits.

    `create`: also create a queue that does not exist yet, so that who subscribes before the first push gets that message.
    """
    sources, waits_for = [], []
    for queue in await _queues(tenant_id, target, create=create):
        try:
            group = await catalog.group(tenant_id, queue, target.group, target.subscription)
        except LookupError:
            continue  # the queue was dropped at this moment
        waits_for.append((queue.id, group))
        partition = None
        if target.partition:
            partition = await catalog.find_partition(tenant_id, queue, target.partition)
            if partition is None:
                continue
        sources.append(Source(tenant_id, group, queue, partition, queue.priority))
    return tuple(sources), waits_for


async def _queues(tenant_id: int, target: Target, *, create: bool) -> list[QueueSettings]:
    if not target.queue:
        return await catalog.matching(tenant_id, target.namespace, target.task)
    if create:
        return [await catalog.find_or_create(tenant_id, target.queue)]
    queue = await catalog.find(tenant_id, target.queue)
    return [queue] if queue else []


async def exist(tenant_id: int, target: Target, sources: Sequence[Source]) -> bool:
    """Whether all groups of these sources still exist. If not, the cached ones are forgotten.

    Pops that found nothing in the same claim share one query.
    """
    there = await _existing.get().of(tenant_id).submit(_Groups(tenant_id, {source.group_id for source in sources}))
    if there:
        return True
    forget(tenant_id, target, sources)
    return False


class _Groups(msgspec.Struct, frozen=True):
    """Groups of one pop."""

    tenant_id: int
    ids: set[int]


async def _exist(requests: Sequence[_Groups]) -> list[bool]:
    ids = sorted(set().union(*(request.ids for request in requests)))
    rows = await database.fetch(SQL["existing_groups"], {"tenant": requests[0].tenant_id, "groups": Bigints(ids)})
    there = {id for (id,) in rows}
    return [request.ids <= there for request in requests]


_existing: PerLoop[Family[_Groups, bool]] = PerLoop(lambda: Family(lambda: Batcher(_exist)), close=Family.finish)


def forget(tenant_id: int, target: Target, sources: Sequence[Source]) -> None:
    for source in sources:
        catalog.forget_group(tenant_id, source.queue, target.group)
        catalog.forget_queue(tenant_id, source.queue.name)
        if target.partition:
            catalog.forget_partition(tenant_id, source.queue, target.partition)
