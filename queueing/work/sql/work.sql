-- The one template of claims. A work table has `tenant_id, id, run_at, priority, attempt, lease_id, leased_until` and an index on
-- `(tenant_id, priority DESC, run_at, id)` over its open rows. Formatted into it: {table}, {open} (the predicate of that
-- index), {columns} and {joins} (what a claim returns of a row `p`).

-- name: due
-- Tenants that have due rows, in random order. A loose index scan: one probe per tenant with open
-- rows, however many rows there are (the full order is the partial index's own: by another index it would read closed rows
-- by the million), and one for its first due row. A tenant whose rows only wait for their date has no share of a claim.
WITH RECURSIVE waiting AS (
    (SELECT tenant_id FROM {table} WHERE {open} ORDER BY tenant_id, priority DESC, run_at, id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT w.tenant_id FROM {table} w WHERE {open} AND w.tenant_id > waiting.tenant_id
        ORDER BY w.tenant_id, w.priority DESC, w.run_at, w.id LIMIT 1
    )
    FROM waiting WHERE waiting.tenant_id IS NOT NULL
)
SELECT w.tenant_id
FROM waiting w
WHERE w.tenant_id IS NOT NULL AND (
    SELECT true FROM {table} d
    WHERE d.tenant_id = w.tenant_id AND {open} AND d.run_at <= now() AND (d.leased_until IS NULL OR d.leased_until < now())
    ORDER BY d.priority DESC, d.run_at, d.id LIMIT 1
)
ORDER BY random()
LIMIT %(limit)s;

-- name: take
-- Lock due rows of these tenants, at most `quota` of each. The rows are not written: the caller writes them in the same
-- transaction, and those that it leaves alone are free afterwards.
SELECT {columns}
FROM unnest(%(tenants)s::bigint[], %(quotas)s::bigint[]) AS t (tenant_id, quota)
CROSS JOIN LATERAL (
    SELECT * FROM {table} p
    WHERE p.tenant_id = t.tenant_id AND {open} AND p.run_at <= now() AND (p.leased_until IS NULL OR p.leased_until < now())
    ORDER BY p.priority DESC, p.run_at, p.id
    LIMIT t.quota
    FOR UPDATE SKIP LOCKED
) p
{joins};

-- name: release
-- Let the leases of workers that fell silent lapse at once.
UPDATE {table} SET leased_until = now() - interval '1 millisecond'
WHERE {open} AND lease_id = ANY(%(workers)s::bigint[]) AND leased_until > now();

-- name: depth
-- Open rows that are due, leased and scheduled, and the age of the oldest due one in seconds. At most `sample` rows are counted.
SELECT count(*) FILTER (WHERE run_at <= now() AND (leased_until IS NULL OR leased_until < now())),
       count(*) FILTER (WHERE leased_until >= now()),
       count(*) FILTER (WHERE run_at > now()),
       coalesce(extract(epoch FROM now() - min(run_at) FILTER (WHERE run_at <= now() AND leased_until IS NULL)), 0)::float8
FROM (
    SELECT run_at, leased_until FROM {table} WHERE {open} ORDER BY tenant_id, priority DESC, run_at, id LIMIT %(sample)s
) open;

-- name: heard
-- Seconds since a worker of a queue beat last; none: never, or all have signed off.
SELECT extract(epoch FROM now() - max(heartbeat_at))::float8 FROM queueing_worker WHERE queue = %(queue)s;
