"""Reads the log of a tenant's API requests, a page at a time. registry.edge.request_log writes it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from registry.data import clock
from registry.edge.request_log import KEPT_DAYS, id_at
from registry.models import ApiRequest

SEARCHED = 100_000  # entries that one page looks through: some tenths of a second
STATUSES = {"2xx": (200, 299), "3xx": (300, 399), "4xx": (400, 499), "5xx": (500, 599), "errors": (400, 599)}


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilters:
    """What an entry must match; empty: anything."""

    key: str = ""
    status: str = ""  # of STATUSES
    path: str = ""  # a part of it
    since: datetime | None = None
    until: datetime | None = None


class RequestPage(NamedTuple):
    """Entries, the newest first. `before`: id from which older ones are searched, None where there are none."""

    entries: list[ApiRequest]
    before: int | None
    complete: bool  # False: SEARCHED entries were looked through, and there are more


async def page_of(tenant_id: int, filters: RequestFilters, *, limit: int, before: int | None) -> RequestPage:
    """The newest entries that match, at most `limit`, older than `before`."""
    mine = ApiRequest.async_objects.filter(tenant_id=tenant_id, id__gte=_first(filters.since))
    if filters.until is not None:
        mine = mine.filter(id__lt=id_at(filters.until.timestamp()))
    if before is not None:
        mine = mine.filter(id__lt=before)
    mine = mine.order_by("-id")
    last = [pk async for pk in mine.values_list("id", flat=True)[SEARCHED : SEARCHED + 1]]
    if last:
        mine = mine.filter(id__gt=last[0])
    if filters.key:
        mine = mine.filter(key=filters.key)
    if filters.status:
        mine = mine.filter(status__range=STATUSES[filters.status])
    if filters.path:
        mine = mine.filter(path__contains=filters.path)
    found = [entry async for entry in mine[: limit + 1]]
    if len(found) > limit:
        return RequestPage(found[:limit], found[limit - 1].id, complete=True)
    return RequestPage(found, last[0] + 1 if last else None, complete=not last)


def _first(since: datetime | None) -> int:
    """The lowest id that is shown: older entries may not be removed yet."""
    oldest = clock.now() - timedelta(days=KEPT_DAYS)
    return id_at(max(since or oldest, oldest).timestamp())


async def one(tenant_id: int, id: int) -> ApiRequest | None:
    return await ApiRequest.async_objects.filter(tenant_id=tenant_id, id=id).afirst()
