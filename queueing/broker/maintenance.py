"""Whether a tenant's pushes wait in the spill and its pops get nothing, known to every process within a second."""

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from registry.data import database, reach
from registry.data.loop import PerLoop
from registry.errors import Unavailable

SQL = database.statements(Path(__file__).parent / "sql" / "maintenance.sql")

FRESH = 0.5  # seconds that what was read is used; with the time to read it that is less than a second


class Modes(msgspec.Struct, frozen=True):
    """What is stopped for a tenant."""

    push: bool = False
    pop: bool = False


NOTHING = Modes()
listeners: list[Callable[[Iterable[int]], None]] = []  # who wants to hear of all tenants that ever were


class _Known:
    """All tenants that ever were in maintenance, which are few, read at once."""

    def __init__(self) -> None:
        self.modes: dict[int, Modes] = {}
        self.read_at = -FRESH
        self._reading: asyncio.Task[None] | None = None

    @property
    def fresh(self) -> bool:
        return time.monotonic() - self.read_at < FRESH

    async def read(self) -> None:
        """Once for all who ask at the same time. While the database is away, what was known last counts."""
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read())
        await asyncio.shield(self._reading)

    async def _read(self) -> None:
        started = time.monotonic()
        try:
            rows = await reach.attempt(lambda: database.fetch(SQL["maintenance"]), writes=False)
            self.modes = {tenant: Modes(push, pop) for tenant, push, pop in rows}
            for tell in listeners:
                tell(self.modes)
        except Unavailable:
            pass
        finally:
            self.read_at = started
            self._reading = None

    async def close(self) -> None:
        if self._reading:
            await asyncio.gather(self._reading, return_exceptions=True)


_all: PerLoop[_Known] = PerLoop(_Known, close=_Known.close)
_known = _all.get


async def modes(tenant_id: int, *, fresh: bool = False) -> Modes:
    """What is stopped for this tenant, at most FRESH seconds ago."""
    known = _known()
    if fresh or not known.fresh:
        await known.read()
    return known.modes.get(tenant_id, NOTHING)


async def set(tenant_id: int, *, push: bool | None = None, pop: bool | None = None) -> Modes:
    """Stop or let go on; what is None stays as it is. Raises Unavailable (503)."""
    rows = await database.fetch(SQL["set_maintenance"], {"tenant": tenant_id, "push": push, "pop": pop})
    found = _known().modes[tenant_id] = Modes(*rows[0])
    return found
