"""Maintenance mode of tenants: pushes are buffered in the spill, pops get no messages. Every process knows it within a second."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from registry.data import database
from registry.data.cache import NEVER, Cached
from registry.errors import Unavailable

SQL = database.statements(Path(__file__).parent / "sql" / "maintenance.sql")

FRESH = 0.5  # seconds that loaded modes are used; together with the load that is less than a second


class Modes(msgspec.Struct, frozen=True):
    """What is paused for a tenant."""

    push: bool = False
    pop: bool = False


NOTHING = Modes()
listeners: list[
    Callable[[Iterable[int]], None]
] = []  # called at each load with all tenants that ever were in maintenance


async def _load(_: None) -> dict[int, Modes]:
    """The modes of all tenants that ever were in maintenance. They are few, so they are loaded together."""
    modes = {tenant: Modes(push, pop) for tenant, push, pop in await database.fetch(SQL["maintenance"])}
    for tell in listeners:
        tell(modes)
    return modes


_modes = Cached(_load, fresh=FRESH, stale=FRESH, while_away=True, patient=False)


async def modes(tenant_id: int, *, fresh: bool = False) -> Modes:
    """The tenant's modes, at most FRESH seconds old; none where they are unknown because the database is unavailable."""
    try:
        known = await _modes.get(None, since=time.monotonic() if fresh else NEVER)
    except Unavailable:
        return NOTHING
    return known.get(tenant_id, NOTHING)


async def set(tenant_id: int, *, push: bool | None = None, pop: bool | None = None) -> Modes:
    """Pause or resume pushes and pops; None leaves one as it is. Raises Unavailable (503)."""
    rows = await database.fetch(SQL["set_maintenance"], {"tenant": tenant_id, "push": push, "pop": pop})
    written = Modes(*rows[0])
    _modes.change(None, lambda known: known | {tenant_id: written})  # holds also when the database goes away now
    return written
