-- Template of the statements of all work tables. A work table has `tenant_id, id, run_at, priority, attempt, lease_id, leased_until`
-- and a partial index on `(tenant_id, priority DESC, run_at, id)` of its open rows. Formatted into the template: {table}, {open}
-- (that index's predicate), {columns} and {joins} (what `take` returns of a row `p`).

-- name: due
-- Tenants with due rows, in random order. A loose index scan: one probe per tenant with open rows, however many rows it has, and
-- one for its first due row. ORDER BY names all columns of the partial index: else the planner may choose another index and read
-- millions of closed rows. Tenants whose open rows are all scheduled for later are left out: they need no share of a claim.
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
-- Lock due rows of these tenants, at most `quota` of each. The caller writes leases in the same transaction; the other rows are
-- unlocked by its commit.
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
-- End the leases of dead workers now.
UPDATE {table} SET leased_until = now() - interval '1 millisecond'
WHERE {open} AND lease_id = ANY(%(workers)s::bigint[]) AND leased_until > now();

-- name: depth
-- Open rows that are due, leased and scheduled, of at most `sample` rows; and the seconds for which the oldest one has been due.
SELECT count(*) FILTER (WHERE run_at <= now() AND (leased_until IS NULL OR leased_until < now())),
       count(*) FILTER (WHERE leased_until >= now()),
       count(*) FILTER (WHERE run_at > now()),
       coalesce(extract(epoch FROM now() - min(run_at) FILTER (WHERE run_at <= now() AND leased_until IS NULL)), 0)::float8
FROM (
    SELECT run_at, leased_until FROM {table} WHERE {open} ORDER BY tenant_id, priority DESC, run_at, id LIMIT %(sample)s
) open;

-- name: silent_for
-- Seconds since the last heartbeat of a queue's workers; null if there are none.
SELECT extract(epoch FROM now() - max(heartbeat_at))::float8 FROM queueing_worker WHERE queue = %(queue)s;
