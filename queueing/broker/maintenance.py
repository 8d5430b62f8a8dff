"""Whether a tenant's pushes wait in the spill and its pops get nothing, known to every process within a second."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from registry.data import database
from registry.data.cache import NEVER, Cached
from registry.errors import Unavailable

SQL = database.statements(Path(__file__).parent / "sql" / "maintenance.sql")

FRESH = 0.5  # seconds that what was read is used; with the time to read it that is less than a second


class Modes(msgspec.Struct, frozen=True):
    """What is stopped for a tenant."""

    push: bool = False
    pop: bool = False


NOTHING = Modes()
listeners: list[Callable[[Iterable[int]], None]] = []  # who wants to hear of all tenants that ever were


async def _load(_: None) -> dict[int, Modes]:
    """All tenants that ever were in maintenance, which are few, read at once."""
    modes = {tenant: Modes(push, pop) for tenant, push, pop in await database.fetch(SQL["maintenance"])}
    for tell in listeners:
        tell(modes)
    return modes


_modes = Cached(_load, fresh=FRESH, stale=FRESH, while_away=True, patient=False)


async def modes(tenant_id: int, *, fresh: bool = False) -> Modes:
    """What is stopped for this tenant, at most FRESH seconds ago; nothing while that is unknown for want of a database."""
    try:
        known = await _modes.get(None, since=time.monotonic() if fresh else NEVER)
    except Unavailable:
        return NOTHING
    return known.get(tenant_id, NOTHING)


async def set(tenant_id: int, *, push: bool | None = None, pop: bool | None = None) -> Modes:
    """Stop or let go on; what is None stays as it is. Raises Unavailable (503)."""
    rows = await database.fetch(SQL["set_maintenance"], {"tenant": tenant_id, "push": push, "pop": pop})
    _modes.forget(None)
    return Modes(*rows[0])
