"""Wake drains by NOTIFY after a commit. It is only a hint: drains poll as well."""

from registry.data import database
from registry.data.loop import PerLoop
from registry.data.publisher import Publisher


async def _notify(queues: list[str]) -> None:
    # Not in the caller's transaction: a commit with NOTIFY holds a global lock until its fsync is done.
    async with database.connection() as conn:
        for queue in sorted(set(queues)):
            await conn.execute(f"NOTIFY {queue}")


publishers: PerLoop[Publisher[str]] = PerLoop(lambda: Publisher(_notify), close=Publisher.close)


def wake(queue: str) -> None:
    """Wake the drains of a work table. Never waits or raises."""
    publishers.get().publish([queue])
