"""Replay dead letters for an operator; the guarded actions on them in the admin. The console's are in queueing/console."""

from collections.abc import Sequence
from itertools import batched, groupby

from django.db.models.functions import Now
from psycopg import AsyncConnection

from queueing.broker import dead_letters
from queueing.broker.dead_letters import MOVED, Ready
from queueing.broker.errors import UnknownDeadLetter
from registry.errors import Problem
from registry.operators.confirm import Confirmed
from registry.operators.decide import Done, Moved, decide
from registry.operators.rows import guarded

TOGETHER = 100  # replayed in one transaction: it locks their partitions until it commits
OPEN = {"ended_at": None}
REPLAY_WARNING = "Each is pushed once more, to the end of its partition, and leaves the dead letters. All consumer groups receive it."


async def replay(*, tenant_id: int, numbers: Sequence[int], actor: str, reason: str, target: str = "") -> Done:
    """Push dead letters again, and record them in the same transaction, TOGETHER at a time.

    Lost are those that somebody else replayed or purged, and those that cannot be read.
    """
    ready = [found for number in numbers if (found := await _ready(tenant_id, number))]
    ready.sort(key=lambda one: (one.partition, one.row.id))  # the order in which pushes lock partitions
    done = 0
    for some in batched(ready, TOGETHER):
        done += await _replay_together(tenant_id, some, actor, reason, target)
    return Done(rows=done, lost=len(numbers) - done)


async def _ready(tenant_id: int, number: int) -> Ready | None:
    try:
        return await dead_letters.ready(tenant_id, number)
    except Problem:
        return None


async def _replay_together(tenant_id: int, some: Sequence[Ready], actor: str, reason: str, target: str) -> int:
    pushed: list[Ready] = []

    async def move(conn: AsyncConnection) -> list[Moved]:
        pushed[:] = [one for one in some if await _pushed(conn, tenant_id, one)]
        ids = [one.row.id for one in pushed]
        about = target or f"dead letters {', '.join(map(str, ids[:5]))}"
        return [Moved(target=about, tenant_id=tenant_id, rows=len(ids), detail={"ids": ids})] if ids else []

    await decide(action="deadmessage.replay", actor=actor, reason=reason, move=move)
    for one in pushed:
        dead_letters.tell(tenant_id, one)
    return len(pushed)


async def _pushed(conn: AsyncConnection, tenant_id: int, one: Ready) -> bool:
    try:
        return await dead_letters.write(conn, tenant_id, one) == MOVED
    except UnknownDeadLetter:  # purged meanwhile; nothing of it is written
        return False


async def _replay_rows(confirmed: Confirmed) -> Done:
    done, rows = 0, sorted(confirmed.action.rows, key=lambda row: row.tenant_id)
    for tenant_id, mine in groupby(rows, key=lambda row: row.tenant_id):
        numbers = [row.pk for row in mine]
        replayed = await replay(tenant_id=tenant_id, numbers=numbers, actor=confirmed.actor, reason=confirmed.reason)
        done += replayed.rows
    return Done(rows=done, lost=len(rows) - done)


REPLAY = guarded("deadmessage.replay", label="Replay", warning=REPLAY_WARNING, expects=OPEN, perform=_replay_rows)
PURGE = guarded(
    "deadmessage.purge",
    label="Purge",
    warning="They leave the dead letters and are deleted with their payloads. This cannot be undone.",
    expects=OPEN,
    sets={"ended_at": Now()},
)
