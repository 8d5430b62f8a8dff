"""What needs a person's attention, for a merchant's home and the operators' home. Each app registers its sources by name.

A name is also the anchor of the item's section in docs/operators/runbook.md.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import IntEnum

from registry.data import database
from registry.data.loop import sync_twin

log = logging.getLogger(__name__)

AT_ONCE = 8  # sources that are read at the same time
COUNTED = 10_000  # rows that a source counts at most
WITHIN = 1.0  # seconds for each source: the page is shown without those that take longer


class Severity(IntEnum):
    """How soon somebody must look; the most urgent first."""

    CRITICAL = 0  # payments or money wait for a person
    WARNING = 1  # it will become critical if nobody acts
    NOTICE = 2  # to be done some day
    WELL = 3  # nothing to be done: what was checked, for the operators' home only


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something that needs attention."""

    severity: Severity
    sentence: str  # what happened, and what it means for the money
    count: int = 1
    since: datetime | None = None
    action: str = ""  # label of the link to where it can be resolved
    page: str = ""  # its address in the console, without `?tenant=`; empty: nothing that a merchant can do
    admin: str = ""  # its address in the admin; empty: the page of the console
    name: str = ""  # of the source; filled in by `items`
    known: bool = True  # False: the source could not be read


# The ids of the tenants, or None for all tenants and for the service itself.
type Source = Callable[[Sequence[int] | None], Awaitable[Sequence[Item]]]
_sources: dict[str, Source] = {}


def source(name: str) -> Callable[[Source], Source]:
    """Register a source of items. It runs at most one bounded statement, and says nothing about the service itself to a tenant."""

    def register(read: Source) -> Source:
        _sources[name] = read
        return read

    return register


def counted(number: int, noun: str = "", plural: str = "") -> str:
    """A count for a sentence: 1 payment, 1,284 payments, 10,000 or more payments."""
    more = " or more" if number >= COUNTED else ""
    word = noun if number == 1 else plural or f"{noun}s"
    return f"{number:,}{more} {word}" if noun else f"{number:,}{more}"


def names() -> list[str]:
    """The names of all sources."""
    return sorted(_sources)


async def items(tenant_ids: Sequence[int] | None) -> list[Item]:
    """What needs attention, the most urgent first, then the oldest. A source that fails is shown as unknown, with the reason."""
    return [item for item in await report(tenant_ids) if item.severity is not Severity.WELL]


async def report(tenant_ids: Sequence[int] | None) -> list[Item]:
    """The same, and last what was checked and is well."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(name: str, read: Source) -> list[Item]:
        async with slots:
            return await _read(name, read, tenant_ids)

    lists = await asyncio.gather(*(one(name, read) for name, read in _sources.items()))
    found = [item for items in lists for item in items]
    return sorted(found, key=lambda item: (item.severity, item.since is None, item.since))


report_sync = sync_twin(report)


async def _read(name: str, read: Source, tenant_ids: Sequence[int] | None) -> list[Item]:
    try:
        async with asyncio.timeout(WITHIN), database.own_connection():
            found = await read(tenant_ids)
    except Exception as error:  # whatever it is, the other sources are shown
        log.warning("a source of attention failed", extra={"source": name}, exc_info=error)
        reason = f"no answer within {WITHIN:g} s" if isinstance(error, TimeoutError) else type(error).__name__
        unknown = f"{name.replace('_', ' ').replace('.', ': ')} could not be read: {reason}."
        return [Item(name=name, severity=Severity.WARNING, sentence=unknown, count=0, known=False)]
    return [replace(item, name=name) for item in found]
