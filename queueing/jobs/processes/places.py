"""Places: how many child processes a worker has at once, and which tenant's jobs get the next ones. No I/O.

A worker has ORDINARY places for everybody. While these are taken, a tenant that holds no place of this worker gets one of the FURTHER
places, so that long jobs of one tenant keep no other waiting (docs/decisions/047).
"""

import os
from collections import Counter
from collections.abc import Iterable

from queueing.jobs.decisions import JobClaim

ORDINARY = max(2, os.cpu_count() or 1)  # of a worker; a tenant never holds more
FURTHER = max(
    2, ORDINARY // 2
)  # each up to `memory` of its kind, as the ordinary ones: their number bounds a worker's memory

type Share = tuple[int, str]  # tenant, kind
type Holder = tuple[int, int, int]  # tenant id, row id, attempt


class Places:
    """The places of one worker."""

    def __init__(self, *, ordinary: int = ORDINARY, further: int = FURTHER) -> None:
        self.ordinary, self.further = ordinary, further
        self._held: Counter[int] = Counter()  # by tenant
        self._in_further: set[Holder] = set()
        self._served: dict[int, int] = {}  # by tenant: number of the attempt that got a place last
        self._attempts = 0

    @property
    def taken(self) -> int:
        return self._held.total()

    def free(self) -> bool:
        """Whether there is a place for any tenant."""
        return self._free_ordinary() > 0 or self._free_further() > 0

    def free_for(self, tenant: int) -> bool:
        return self._free_ordinary() > 0 or (self._free_further() > 0 and not self._held[tenant])

    def in_turn(self, shares: Iterable[Share]) -> list[Share]:
        """Those of these shares for which there is a place: first of tenants with the fewest places, then of those served longest ago."""
        return sorted((share for share in shares if self.free_for(share[0])), key=lambda share: self._turn(share[0]))

    def divide(self, quotas: dict[Share, int]) -> dict[Share, int]:
        """The quotas, lowered to the free places, which are given away one by one, each to the tenant whose turn it is."""
        ordinary, further = self._free_ordinary(), self._free_further()
        given: Counter[Share] = Counter()
        now = Counter(self._held)
        while wanting := [
            share for share, quota in quotas.items() if given[share] < quota and _may(share, ordinary, further, now)
        ]:
            share = min(wanting, key=lambda one: (now[one[0]], given[one], self._served.get(one[0], 0)))
            ordinary, further = (ordinary - 1, further) if ordinary else (ordinary, further - 1)
            given[share] += 1
            now[share[0]] += 1
        return dict(given)

    def hold(self, claims: Iterable[JobClaim]) -> None:
        for one in claims:
            if self._free_ordinary() <= 0:
                self._in_further.add(_holder(one))
            self._held[one.tenant_id] += 1
            self._attempts += 1
            self._served[one.tenant_id] = self._attempts

    def release(self, claims: Iterable[JobClaim]) -> None:
        for one in claims:
            self._in_further.discard(_holder(one))
            self._held[one.tenant_id] -= 1
            if not self._held[one.tenant_id]:
                del self._held[one.tenant_id]

    def _free_ordinary(self) -> int:
        return self.ordinary - (self.taken - len(self._in_further))

    def _free_further(self) -> int:
        return self.further - len(self._in_further)

    def _turn(self, tenant: int) -> tuple[int, int]:
        return self._held[tenant], self._served.get(tenant, 0)


def _may(share: Share, ordinary: int, further: int, held: Counter[int]) -> bool:
    return ordinary > 0 or (further > 0 and not held[share[0]])


def _holder(claim: JobClaim) -> Holder:
    return claim.tenant_id, claim.job_id, claim.attempt
