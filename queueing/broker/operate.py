"""Guarded actions of the message queue in the admin: replay and purge dead letters. The console's are in queueing/console."""

from django.db.models.functions import Now
from psycopg import AsyncConnection

from queueing.broker import dead_letters
from queueing.broker.dead_letters import MOVED, Write
from queueing.broker.models import DeadMessage
from registry.errors import Problem
from registry.operators.confirm import Confirmed
from registry.operators.decide import Done, Moved, decide, each
from registry.operators.rows import guarded

OPEN = {"ended_at": None}
REPLAY_WARNING = "Each is pushed once more, to the end of its partition, and leaves the dead letters. All consumer groups receive it."


async def replay(*, tenant_id: int, number: int, actor: str, reason: str) -> bool:
    """Push a dead letter again and record it in the same transaction. False where it is not open or cannot be read."""

    async def transact(write: Write) -> str | None:
        verdict: str | None = None

        async def move(conn: AsyncConnection) -> list[Moved]:
            nonlocal verdict
            verdict = await write(conn)
            return [Moved(target=f"dead letter {number}", tenant_id=tenant_id)] if verdict == MOVED else []

        await decide(action="deadmessage.replay", actor=actor, reason=reason, move=move)
        return verdict

    try:
        return (await dead_letters.replay(tenant_id, str(number), transact=transact)).verdict == MOVED
    except Problem:
        return False


async def _replay(confirmed: Confirmed) -> Done:
    async def one(letter: DeadMessage) -> bool:
        return await replay(
            tenant_id=letter.tenant_id, number=letter.pk, actor=confirmed.actor, reason=confirmed.reason
        )

    return await each(confirmed.action.rows, one)


REPLAY = guarded("deadmessage.replay", label="Replay", warning=REPLAY_WARNING, expects=OPEN, perform=_replay)
PURGE = guarded(
    "deadmessage.purge",
    label="Purge",
    warning="They leave the dead letters and are deleted with their payloads. This cannot be undone.",
    expects=OPEN,
    sets={"ended_at": Now()},
)
