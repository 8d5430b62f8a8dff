"""Rows as work: claim, lease and give back, for any table that has the columns. What the work is, the owning app knows.

A work table has `tenant_id, id, status, run_at, priority, attempt, lease_id, leased_until` and an index on
`(tenant_id, priority DESC, run_at, id)` over its open rows. `lease_id` is the Worker that holds a row; finishing names
the attempt it finishes (the fence), so that whoever lost a lease changes nothing any more.
"""

from dataclasses import dataclass
from functools import cached_property

from registry.data import database

# Fair between tenants: each that has due rows gets an equal share of the limit, and no more than its room. The loose
# index scan (`waiting`) costs one index probe per tenant with open rows, however many rows there are (the full order is the
# partial index's own: by another index it would read closed rows by the million); whose rows only
# wait for their date has no share, or a few hundred such tenants would leave one row per claim to the busy one. Rows of
# one claim are locked, not written: the caller writes them in the same transaction, and what it leaves alone is free.
_CLAIM = """
WITH RECURSIVE waiting AS (
    (SELECT tenant_id FROM {table} WHERE {open} ORDER BY tenant_id, priority DESC, run_at, id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT w.tenant_id FROM {table} w WHERE {open} AND w.tenant_id > waiting.tenant_id
        ORDER BY w.tenant_id, w.priority DESC, w.run_at, w.id LIMIT 1
    )
    FROM waiting WHERE waiting.tenant_id IS NOT NULL
), turn AS MATERIALIZED (
    SELECT w.tenant_id,
        least(ceil(%(limit)s::numeric / count(*) OVER ())::bigint, coalesce(r.room, %(room)s::bigint)) AS quota
    FROM waiting w
    LEFT JOIN unnest(%(tenants)s::bigint[], %(rooms)s::bigint[]) AS r (tenant_id, room) ON r.tenant_id = w.tenant_id
    WHERE w.tenant_id IS NOT NULL AND coalesce(r.room, 1) > 0 AND (
        SELECT true FROM {table} d
        WHERE d.tenant_id = w.tenant_id AND {open} AND d.run_at <= now() AND (d.leased_until IS NULL OR d.leased_until < now())
        ORDER BY d.priority DESC, d.run_at, d.id LIMIT 1
    )
    ORDER BY random()
    LIMIT %(limit)s
)
SELECT {columns}
FROM turn t
CROSS JOIN LATERAL (
    SELECT * FROM {table} p
    WHERE p.tenant_id = t.tenant_id AND {open} AND p.run_at <= now() AND (p.leased_until IS NULL OR p.leased_until < now())
    ORDER BY p.priority DESC, p.run_at, p.id
    LIMIT t.quota
    FOR UPDATE SKIP LOCKED
) p
{joins}
"""

_RELEASE = """
UPDATE {table} SET leased_until = now() - interval '1 millisecond'
WHERE {open} AND lease_id = ANY(%(workers)s::bigint[]) AND leased_until > now()
"""

_DEPTH = """
SELECT count(*) FILTER (WHERE run_at <= now() AND (leased_until IS NULL OR leased_until < now())),
       count(*) FILTER (WHERE leased_until >= now()),
       count(*) FILTER (WHERE run_at > now()),
       coalesce(extract(epoch FROM now() - min(run_at) FILTER (WHERE run_at <= now() AND leased_until IS NULL)), 0)::float8
FROM (
    SELECT run_at, leased_until FROM {table} WHERE {open} ORDER BY tenant_id, priority DESC, run_at, id LIMIT {sample}
) open
"""

DEPTH_SAMPLE = 100_000  # rows counted at most: beyond that the number says "a lot" and the probe stays cheap


@dataclass(frozen=True)
class Depth:
    """What waits in a work table; counts stop at DEPTH_SAMPLE."""

    waiting: int
    leased: int
    scheduled: int
    oldest: float  # seconds that the longest waiting row is due


@dataclass(frozen=True)
class WorkTable:
    """A table whose rows are work."""

    queue: str  # its name in metrics, in Worker rows and as NOTIFY channel
    table: str
    open: str  # SQL predicate of its partial index
    columns: str = "p.*"  # what a claim returns
    joins: str = ""

    @cached_property
    def claim(self) -> str:
        """Lock up to `limit` due rows; parameters limit, room (per tenant), tenants and rooms (exceptions to it)."""
        return _CLAIM.format(table=self.table, open=self.open, columns=self.columns, joins=self.joins)

    async def release(self, workers: list[int]) -> None:
        """Let the leases of these workers lapse at once."""
        await database.fetch(_RELEASE.format(table=self.table, open=self.open), {"workers": workers})

    async def depth(self) -> Depth:
        sql = _DEPTH.format(table=self.table, open=self.open, sample=DEPTH_SAMPLE)
        return Depth(*(await database.fetch(sql, repeatable=False))[0])


TABLES: dict[str, WorkTable] = {}


def register(table: WorkTable) -> WorkTable:
    TABLES[table.queue] = table
    return table
