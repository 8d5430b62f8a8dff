"""Addresses in submitted jobs, checked against server-side request forgery. They are checked again whenever something is sent.

A host is looked up at most once in FRESH seconds: a batch may name one address a thousand times.
"""

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from registry.data.cache import Bounded
from registry.data.loop import PerLoop
from registry.http import ssrf
from registry.http.client import BadAddress
from registry.models import Tenant

FRESH = 10.0  # seconds that the outcome of a look-up is used
KEPT = 10_000  # outcomes at most
AT_ONCE = 48  # hosts of one batch that are looked up at the same time: fewer than there are threads for it

type Faults = list[dict[str, str]]


class _Verdict(NamedTuple):
    """Whether anything can be sent to an origin."""

    fault: str  # empty: it can
    at: float  # time.monotonic()


class AddressChecks:
    """The outcomes of look-ups of one loop, by origin."""

    def __init__(self) -> None:
        self._outside = ssrf.Outside()
        self._known: Bounded[str, _Verdict] = Bounded(KEPT)

    async def close(self) -> None:
        self._outside.close()

    async def fault(self, url: str, *, tls_only: bool) -> str:
        """Why nothing can be sent to the URL; empty if it can."""
        try:
            origin, _ = ssrf.parted(url, tls_only=tls_only)
        except BadAddress as error:
            return str(error)
        known = self._known.get(origin)
        if known is None or known.at < time.monotonic() - FRESH:
            known = _Verdict(await ssrf.fault_of(origin, self._outside, tls_only=tls_only), time.monotonic())
            self._known.put(origin, known)
        return known.fault

    async def look_up(self, urls: Iterable[str], *, tls_only: bool) -> None:
        """Look up all hosts of these URLs concurrently, for `fault` to know them."""
        by_origin: dict[str, str] = {}
        for url in urls:
            with suppress(BadAddress):
                by_origin.setdefault(ssrf.parted(url, tls_only=tls_only)[0], url)
        limit = asyncio.Semaphore(AT_ONCE)

        async def look(url: str) -> None:
            async with limit:
                await self.fault(url, tls_only=tls_only)

        await asyncio.gather(*map(look, by_origin.values()))


CHECKS: PerLoop[AddressChecks] = PerLoop(AddressChecks, close=AddressChecks.close)


async def faults_of(url: str, *, mode: str, field: str) -> Faults:
    """Faults of a URL, named by its field. Live tenants need https."""
    fault = await CHECKS.get().fault(url, tls_only=mode == Tenant.Mode.LIVE)
    return [{"field": field, "message": fault}] if fault else []


async def look_up(urls: Iterable[str], *, mode: str) -> None:
    """Look up the hosts of many URLs before `faults_of` is asked for each: concurrently, a slow one delays no other."""
    await CHECKS.get().look_up(urls, tls_only=mode == Tenant.Mode.LIVE)
