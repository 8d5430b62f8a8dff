"""Counter of the records that wait in one SpillQueue, by tenant. It decides which tenants may write to PostgreSQL directly."""

import asyncio
from collections import Counter
from collections.abc import Sequence


class Pending:
    """Counts records that were appended or taken over and are not yet stored or quarantined."""

    def __init__(self) -> None:
        self.total = 0
        self._tenants: Counter[int] = Counter()
        self._changed: asyncio.Future[None] | None = None  # set once no record is pending, or draining fails

    def add(self, tenants: Sequence[int]) -> None:
        self.total += len(tenants)
        self._tenants.update(tenants)

    def remove(self, tenants: Sequence[int]) -> None:
        self.total -= len(tenants)
        self._tenants.subtract(tenants)
        for tenant in set(tenants):
            if self._tenants[tenant] <= 0:
                del self._tenants[tenant]
        if self.total <= 0:
            self._tenants.clear()
            self.notify()

    def blocks(self, tenant_id: int | None) -> bool:
        """Whether a write of this tenant (None: of any) must be appended behind pending records.

        While only one tenant's records wait (its rows may be locked), other tenants may write directly.
        """
        if not self.total:
            return False
        return tenant_id is None or tenant_id in self._tenants or len(self._tenants) > 1

    async def wait_until_empty(self, within: float) -> None:
        """Return after `within` seconds at most, or as soon as draining fails."""
        if self._changed is None:
            self._changed = asyncio.get_running_loop().create_future()
        await asyncio.wait({self._changed}, timeout=within)

    def notify(self) -> None:
        """Wake the callers of `wait_until_empty`."""
        if self._changed and not self._changed.done():
            self._changed.set_result(None)
        self._changed = None
