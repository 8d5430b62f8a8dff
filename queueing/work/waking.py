"""Wake the drains of a work table: a hint beside the commit that there is work. Drains poll without it."""

from registry.data import database
from registry.data.loop import PerLoop
from registry.data.publisher import Publisher


async def _notify(queues: list[str]) -> None:
    # On its own: a NOTIFY in the caller's transaction would hold a lock that all share until its fsync is done.
    async with database.connection() as conn:
        for queue in sorted(set(queues)):
            await conn.execute(f"NOTIFY {queue}")


publishers: PerLoop[Publisher[str]] = PerLoop(lambda: Publisher(_notify), close=Publisher.close)


def wake(queue: str) -> None:
    """Wake the drains of a work table. Never waits, never fails."""
    publishers.get().publish([queue])
