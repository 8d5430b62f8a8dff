"""How many payments may be under way at once, by address and by tenant: nobody may hold more places than are free.

With one slow address half of the places stay free, with two a third, with three a quarter: however many are slow, there is
always room for the others, and what is alone has half of everything.
"""

from collections import Counter

PLACES = 800  # payments under way in a worker: rate × delay must fit twice (550/s at 0.5 s is 275)
TENANT_PLACES = 600  # of these for one tenant, so that the others have some


class Places:
    """Who holds how many."""

    def __init__(self, places: int = PLACES, of_tenant: int = TENANT_PLACES) -> None:
        self.places, self.of_tenant = places, of_tenant
        self._all = 0
        self._tenants: Counter[int] = Counter()
        self._endpoints: Counter[str] = Counter()
        self._pairs: Counter[tuple[int, str]] = Counter()

    def left(self, tenant: int, endpoint: str) -> int:
        """How many more payments of the tenant may go to the address now."""
        here, free = self._endpoints[endpoint], self.places - self._all
        own, rest = self._pairs[tenant, endpoint], self.of_tenant - self._tenants[tenant]
        return max(0, min((free - here + 1) // 2, (rest - own + 1) // 2))

    def scarce(self, limit: int) -> bool:
        """Whether anybody at work could have less than `limit` more."""
        return any(self.left(tenant, endpoint) < limit for tenant, endpoint in self._pairs)

    def take(self, tenant: int, endpoint: str) -> None:
        self._count(tenant, endpoint, 1)

    def give_back(self, tenant: int, endpoint: str) -> None:
        self._count(tenant, endpoint, -1)

    def _count(self, tenant: int, endpoint: str, number: int) -> None:
        self._all += number
        self._tenants[tenant] += number
        self._endpoints[endpoint] += number
        self._pairs[tenant, endpoint] += number
        if not self._pairs[tenant, endpoint]:
            del self._pairs[tenant, endpoint]
