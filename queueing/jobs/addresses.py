"""Addresses in submitted jobs, checked against server-side request forgery. They are checked again whenever something is sent.

A host is looked up at most once in FRESH seconds: a batch may name one address a thousand times.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from typing import NamedTuple

from registry.data.cache import Bounded
from registry.data.loop import PerLoop
from registry.errors import Unavailable
from registry.http import ssrf
from registry.http.client import BadAddress
from registry.models import Tenant

FRESH = 10.0  # seconds that the outcome of a look-up is used
KEPT = 10_000  # outcomes at most
AT_ONCE = 48  # hosts of one batch that are looked up at the same time: fewer than there are threads for it
BATCH_WITHIN = 10.0  # seconds for all hosts of one batch; jobs with others are refused as unavailable
NOT_IN_TIME = "the host of this address was not looked up in time; send it again, or fewer hosts at once"

type Faults = list[dict[str, str]]


class _Verdict(NamedTuple):
    """Whether anything can be sent to an origin."""

    fault: str  # empty: it can
    at: float  # time.monotonic()


# Why nothing can be sent to the origins in the batch that this task checks; None for those that were not looked up in time. Kept for
# the whole batch: an outcome that grew old meanwhile would be looked up again, one after the other.
_OF_BATCH: ContextVar[Mapping[str, str | None] | None] = ContextVar("faults of a batch's origins", default=None)


class AddressChecks:
    """The outcomes of look-ups of one loop, by origin."""

    def __init__(self) -> None:
        self._outside = ssrf.Outside()
        self._known: Bounded[str, _Verdict] = Bounded(KEPT)

    async def close(self) -> None:
        self._outside.close()

    async def fault(self, url: str, *, tls_only: bool) -> str:
        """Why nothing can be sent to the URL; empty if it can. Raises Unavailable for one in a batch that was not looked up in time."""
        try:
            origin, _ = ssrf.parted(url, tls_only=tls_only)
        except BadAddress as error:
            return str(error)
        if (of_batch := _OF_BATCH.get()) and origin in of_batch:
            if (fault := of_batch[origin]) is None:
                raise Unavailable(NOT_IN_TIME)
            return fault
        known = self._known.get(origin)
        if known is None or known.at < time.monotonic() - FRESH:
            known = _Verdict(await ssrf.fault_of(origin, self._outside, tls_only=tls_only), time.monotonic())
            self._known.put(origin, known)
        return known.fault

    async def look_up(self, urls: Iterable[str], *, tls_only: bool) -> dict[str, str | None]:
        """Look up all hosts of these URLs concurrently: the faults of their origins, None where the time was over before."""
        by_origin: dict[str, str] = {}
        for url in urls:
            with suppress(BadAddress):
                by_origin.setdefault(ssrf.parted(url, tls_only=tls_only)[0], url)
        found: dict[str, str | None] = dict.fromkeys(by_origin)
        limit = asyncio.Semaphore(AT_ONCE)

        async def look(origin: str, url: str) -> None:
            async with limit:
                found[origin] = await self.fault(url, tls_only=tls_only)

        with suppress(TimeoutError):
            async with asyncio.timeout(BATCH_WITHIN):
                await asyncio.gather(*(look(origin, url) for origin, url in by_origin.items()))
        return found


CHECKS: PerLoop[AddressChecks] = PerLoop(AddressChecks, close=AddressChecks.close)


async def faults_of(url: str, *, mode: str, field: str) -> Faults:
    """Faults of a URL, named by its field. Live tenants need https."""
    fault = await CHECKS.get().fault(url, tls_only=mode == Tenant.Mode.LIVE)
    return [{"field": field, "message": fault}] if fault else []


@asynccontextmanager
async def looked_up(urls: Iterable[str], *, mode: str) -> AsyncIterator[None]:
    """Look up the hosts of many URLs, which `faults_of` knows inside: concurrently, a slow one delays no other."""
    known = await CHECKS.get().look_up(urls, tls_only=mode == Tenant.Mode.LIVE)
    token = _OF_BATCH.set(known)
    try:
        yield
    finally:
        _OF_BATCH.reset(token)
