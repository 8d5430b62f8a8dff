"""Parts of `check_books`, registered by name. Each recomputes what one app stores for a tenant, and names what differs.

A part reads in slices, so that memory stays flat and progress is known. What it compares is read by one statement, or in one
snapshot: changes that are committed meanwhile are no differences.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from registry.data import database
from registry.models import Tenant

SERVICE = 0  # the owner of what belongs to no tenant
SLICE = 10_000  # rows of a slice: below a second each
AT_ONCE = 2  # slices read concurrently by a command
NAMED = 10_000  # differences that are kept; further ones are only counted


@dataclass(frozen=True, slots=True, kw_only=True)
class BookDifference:
    """A stored value that differs from what its sources add up to."""

    kind: str  # such as `payment.amount`
    subject: str  # such as "payment 5f4c5b1e-…"
    stored: str  # what is stored
    expected: str  # what it should be

    @property
    def sentence(self) -> str:
        return f"{self.subject}: {self.stored}; it should be {self.expected}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BookSlice:
    """A slice that was compared. `after` (JSON) is where the next one begins; `share` of the part is done by then."""

    rows: int
    share: float
    after: Any = None
    differences: Sequence[BookDifference] = ()


type Check = Callable[[int, Any], AsyncIterator[BookSlice]]  # (tenant, after) → the slices from there on


class BookPart(NamedTuple):
    """A registered check. `service`: it is called for SERVICE as well."""

    name: str
    check: Check
    service: bool


PARTS: dict[str, BookPart] = {}


def book_part(name: str, *, service: bool = False) -> Callable[[Check], Check]:
    """Register the decorated async generator as a part of `check_books`. `after` is None for the first slice."""

    def register(check: Check) -> Check:
        PARTS[name] = BookPart(name, check, service)
        return check

    return register


class Place(NamedTuple):
    """A part of one tenant."""

    tenant_id: int
    part: str


@dataclass
class BookFindings:
    """What a check has found so far."""

    rows: dict[str, int] = field(default_factory=dict)  # by part
    count: int = 0  # of differences
    named: list[tuple[Place, BookDifference]] = field(default_factory=list)  # NAMED at most

    def add(self, place: Place, found: BookSlice) -> None:
        self.rows[place.part] = self.rows.get(place.part, 0) + found.rows
        self.count += len(found.differences)
        self.named += [(place, one) for one in found.differences[: max(0, NAMED - len(self.named))]]


async def owners(slug: str | None = None) -> dict[int, str]:
    """The tenants by id, and a dash for SERVICE; or only the tenant with this slug. Raises Tenant.DoesNotExist."""
    if slug is not None:
        tenant = await Tenant.async_objects.aget(slug=slug)
        return {tenant.pk: tenant.slug}
    rows = Tenant.async_objects.order_by("pk").values_list("pk", "slug")
    return {SERVICE: "–"} | {pk: name async for pk, name in rows}


def places(tenant_ids: Collection[int]) -> list[Place]:
    """All parts of these tenants, in the order in which they are checked."""
    return [
        Place(tenant, part.name)
        for tenant in tenant_ids
        for part in PARTS.values()
        if part.service or tenant != SERVICE
    ]


async def check(
    tenant_ids: Collection[int], seen: Callable[[Place, BookSlice], None], *, at_once: int = AT_ONCE
) -> BookFindings:
    """Check these tenants, `at_once` parts concurrently. `seen` is called after each slice."""
    findings, waiting = BookFindings(), iter(places(tenant_ids))

    async def work() -> None:
        for place in waiting:
            async for found in PARTS[place.part].check(place.tenant_id, None):
                findings.add(place, found)
                seen(place, found)
            seen(place, BookSlice(rows=0, share=1.0))  # also where there was nothing to compare

    await database.concurrently(*[work] * at_once)
    return findings


# -- Reading ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def snapshot() -> AsyncIterator[AsyncConnection]:
    """A read-only transaction of one snapshot, without a statement time-out. Compiling a statement would cost more than it saves."""
    async with database.transaction() as conn:
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        await conn.execute("SET LOCAL statement_timeout = 0")
        await conn.execute("SET LOCAL jit = off")
        yield conn


async def read(sql: str, params: Mapping[str, Any]) -> list[database.Row]:
    """Run one statement of any duration in a snapshot of its own, planned for these parameters. Retried as reads are."""

    async def once() -> list[database.Row]:
        async with snapshot() as conn:
            return await (await conn.execute(sql, params, prepare=False)).fetchall()

    return await database.retrying(once)


class Bounds(NamedTuple):
    """A slice of ids: those above `after`, up to `last`."""

    after: int
    last: int
    rows: int
    share: float  # of the ids, including this slice


async def slices(page: str, last: str, tenant_id: int, after: Any) -> AsyncIterator[Bounds]:
    """Slices of SLICE rows of a tenant's table, in order of id, up to the id that is the last one now.

    `page` returns the last id and the number of the next :limit rows above :after; `last` the last id of all.
    """
    rows = await read(last, {"tenant": tenant_id})
    after, end = after or 0, rows[0][0] if rows else 0
    while after < end:
        [(reached, count)] = await read(page, {"tenant": tenant_id, "after": after, "limit": SLICE})
        if reached is None:
            return
        yield Bounds(after, reached, count, min(1.0, reached / end))
        after = reached


def ranges(numbers: Sequence[int]) -> Iterator[str]:
    """Numbers in order, those in a row as a range: 1 to 3, 5."""
    start = 0
    for n, number in enumerate(numbers):
        if n + 1 == len(numbers) or numbers[n + 1] > number + 1:
            yield str(number) if start == n else f"{numbers[start]} to {number}"
            start = n + 1
