"""Concurrency slots: how many payments may be in flight, by endpoint and by tenant. Nobody holds more slots than are free.

With one slow endpoint half of the slots stay free, with two a third, with three a quarter: however many are slow, the others have
some, and an endpoint that is used alone has half of all.
"""

from collections import Counter

SLOTS = 800  # payments in flight in a worker: rate × delay must fit twice (550/s at 0.5 s is 275)
TENANT_SLOTS = 600  # of these for one tenant, so that the others have some


class Slots:
    """The slots of a worker, and how many each tenant and endpoint holds."""

    def __init__(self, total: int = SLOTS, of_tenant: int = TENANT_SLOTS) -> None:
        self.total, self.of_tenant = total, of_tenant
        self._used = 0
        self._tenants: Counter[int] = Counter()
        self._endpoints: Counter[str] = Counter()
        self._pairs: Counter[tuple[int, str]] = Counter()

    def free(self, tenant: int, endpoint: str) -> int:
        """How many more payments of the tenant may be sent to the endpoint now."""
        here, rest = self._endpoints[endpoint], self.total - self._used
        own, of_tenant = self._pairs[tenant, endpoint], self.of_tenant - self._tenants[tenant]
        return max(0, min((rest - here + 1) // 2, (of_tenant - own + 1) // 2))

    def scarce(self, limit: int) -> bool:
        """Whether a tenant could have less than `limit` more at an endpoint that it uses."""
        return any(self.free(tenant, endpoint) < limit for tenant, endpoint in self._pairs)

    def acquire(self, tenant: int, endpoint: str) -> None:
        self._count(tenant, endpoint, 1)

    def release(self, tenant: int, endpoint: str) -> None:
        self._count(tenant, endpoint, -1)

    def _count(self, tenant: int, endpoint: str, number: int) -> None:
        self._used += number
        self._tenants[tenant] += number
        self._endpoints[endpoint] += number
        self._pairs[tenant, endpoint] += number
        if not self._pairs[tenant, endpoint]:
            del self._pairs[tenant, endpoint]
