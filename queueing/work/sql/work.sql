-- Template of the statements of all work tables. A work table has `tenant_id, id, run_at, priority, attempt, lease_id, leased_until`
-- and a partial index on `(tenant_id, priority DESC, run_at, id)` of its open rows. Formatted into the template: {table}, {open}
-- (that index's predicate), {columns} and {joins} (what `take` returns of a row `p`).
-- `above`: a claim reads no row that was due more seconds ago: it is leased, or its index entry is that of a finished row
-- (queueing/work/shares.py). NULL: it reads all. In every statement that scans due rows this is a condition of the index.

-- name: due
-- Tenants with due rows, in random order. A loose index scan: one probe per tenant with open rows, however many rows it has, and
-- one for its first due row, unless the first open one is due. ORDER BY names all columns of the partial index: else the planner may choose
-- another index and read millions of closed rows. Tenants whose open rows are all scheduled for later are left out: they need no share of
-- a claim. Only rows that became due between `above` and `below` seconds ago.
WITH RECURSIVE waiting AS (
    (
        SELECT tenant_id, run_at <= now() - make_interval(secs => %(below)s::float8) AND (leased_until IS NULL OR leased_until < now()) AS due
        FROM {table}
        WHERE {open} AND run_at >= coalesce(now() - make_interval(secs => %(above)s::float8), '-infinity')
        ORDER BY tenant_id, priority DESC, run_at, id LIMIT 1
    )
    UNION ALL
    SELECT n.tenant_id, n.due
    FROM waiting CROSS JOIN LATERAL (
        SELECT w.tenant_id,
            w.run_at <= now() - make_interval(secs => %(below)s::float8) AND (w.leased_until IS NULL OR w.leased_until < now()) AS due
        FROM {table} w
        WHERE {open} AND w.tenant_id > waiting.tenant_id
          AND w.run_at >= coalesce(now() - make_interval(secs => %(above)s::float8), '-infinity')
        ORDER BY w.tenant_id, w.priority DESC, w.run_at, w.id LIMIT 1
    ) n
)
SELECT w.tenant_id
FROM waiting w
WHERE w.due OR (
    SELECT true FROM {table} d
    WHERE d.tenant_id = w.tenant_id AND {open}
      AND d.run_at >= coalesce(now() - make_interval(secs => %(above)s::float8), '-infinity')
      AND d.run_at <= now() - make_interval(secs => %(below)s::float8) AND (d.leased_until IS NULL OR d.leased_until < now())
    ORDER BY d.priority DESC, d.run_at, d.id LIMIT 1
)
ORDER BY random()
LIMIT %(limit)s;

-- name: any_open
-- Whether any row is open, due or not. In the order of the index: without it a table that was small when the plan was made is read
-- with all of its closed rows.
SELECT (SELECT tenant_id FROM {table} WHERE {open} ORDER BY tenant_id, priority DESC, run_at, id LIMIT 1) IS NOT NULL;

-- name: take
-- Lock due rows of these tenants, at most `quota` of each. The caller writes leases in the same transaction; the other rows are
-- unlocked by its commit.
SELECT {columns}
FROM unnest(%(tenants)s::bigint[], %(quotas)s::bigint[]) AS t (tenant_id, quota)
CROSS JOIN LATERAL (
    SELECT * FROM {table} p
    WHERE p.tenant_id = t.tenant_id AND {open}
      AND p.run_at >= coalesce(now() - make_interval(secs => %(above)s::float8), '-infinity')
      AND p.run_at <= now() AND (p.leased_until IS NULL OR p.leased_until < now())
    ORDER BY p.priority DESC, p.run_at, p.id
    LIMIT t.quota
    FOR UPDATE SKIP LOCKED
) p
{joins};

-- name: release
-- End the leases of dead workers now.
UPDATE {table} SET leased_until = now() - interval '1 millisecond'
WHERE {open} AND lease_id = ANY(%(workers)s::bigint[]) AND leased_until > now();

-- name: standing
-- What is open, of at most `sample` rows in the order of the index, without rows that workers gave up (run_at 9999-12-31): how many,
-- due, leased, not due yet, asked for at a later time; and in seconds, for how long the oldest has been due, and since when the oldest
-- that is not for later was accepted. {accepted} is when a row begins to wait, and takeable whether workers may take it. Where there
-- are more rows than that, the first ten of each of `heads` tenants are aged too: else a tenant with a long backlog would hide how
-- long all others wait.
WITH RECURSIVE counted AS MATERIALIZED (
    SELECT count(*) AS open, count(*) FILTER (WHERE due) AS due, count(*) FILTER (WHERE leased_until >= now()) AS leased,
        count(*) FILTER (WHERE run_at > now()) AS scheduled, count(*) FILTER (WHERE accepted > now()) AS later,
        min(run_at) FILTER (WHERE due) AS due_since, min(accepted) FILTER (WHERE accepted <= now()) AS accepted_at
    FROM (
        SELECT run_at, leased_until, {accepted} AS accepted,
            run_at <= now() AND (leased_until IS NULL OR leased_until < now()) AND {takeable} AS due
        FROM {table}
        WHERE {open} AND run_at < '9999-12-01Z' AND (%(tenants)s::bigint[] IS NULL OR tenant_id = ANY(%(tenants)s::bigint[]))
        ORDER BY tenant_id, priority DESC, run_at, id LIMIT %(sample)s
    ) sample
), waiting AS (  -- as in `due`
    (SELECT tenant_id FROM {table} WHERE {open} ORDER BY tenant_id, priority DESC, run_at, id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT w.tenant_id FROM {table} w WHERE {open} AND w.tenant_id > waiting.tenant_id
        ORDER BY w.tenant_id, w.priority DESC, w.run_at, w.id LIMIT 1
    )
    FROM waiting WHERE waiting.tenant_id IS NOT NULL
), beyond AS MATERIALIZED (
    SELECT min(h.run_at) FILTER (
            WHERE h.run_at <= now() AND (h.leased_until IS NULL OR h.leased_until < now()) AND h.takeable
        ) AS due_since,
        min(h.accepted) FILTER (WHERE h.accepted <= now()) AS accepted_at
    FROM (SELECT tenant_id FROM waiting WHERE tenant_id IS NOT NULL LIMIT %(heads)s) t
    CROSS JOIN LATERAL (
        SELECT run_at, leased_until, {accepted} AS accepted, {takeable} AS takeable
        FROM {table}
        WHERE tenant_id = t.tenant_id AND {open} AND run_at < '9999-12-01Z'
        ORDER BY priority DESC, run_at, id LIMIT 10
    ) h
    WHERE %(tenants)s::bigint[] IS NULL AND (SELECT open FROM counted) >= %(sample)s
)
SELECT open, due, leased, scheduled, later, extract(epoch FROM now() - least(counted.due_since, beyond.due_since))::float8,
    extract(epoch FROM now() - least(counted.accepted_at, beyond.accepted_at))::float8
FROM counted, beyond;

-- name: workers
-- Workers by queue and host: how many report, how many are silent, the latest report, rows in progress and capacity.
SELECT queue, hostname, count(*) FILTER (WHERE heartbeat_at >= now() - make_interval(secs => %(silent)s)),
    count(*) FILTER (WHERE heartbeat_at < now() - make_interval(secs => %(silent)s)), max(heartbeat_at),
    coalesce(sum(in_flight), 0)::bigint, coalesce(sum(capacity), 0)::bigint
FROM queueing_worker GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 1000;

-- name: beat
-- Workers of one process report, and read all workers: their pools, whether they are asked to stop, whether they report in time. A worker
-- that is not among them was deleted.
WITH beaten AS (
    UPDATE queueing_worker w SET heartbeat_at = statement_timestamp(), in_flight = b.in_flight, processes = b.processes,
        places = b.places, finished = b.finished, failed = b.failed
    FROM unnest(%(worker)b::bigint[], %(in_flight)b::bigint[], %(processes)b::bigint[], %(places)b::bigint[], %(finished)b::bigint[],
        %(failed)b::bigint[]) AS b (id, in_flight, processes, places, finished, failed)
    WHERE w.id = b.id
)
SELECT id, pool, takes, stop_requested, heartbeat_at >= statement_timestamp() - make_interval(secs => %(silent)s)
FROM queueing_worker;

-- name: due_chores
-- The chores that are due, of those given by name and interval, in their order: the last run of any host began an interval ago, or
-- ended with its process. Not those that another process runs now. By the server's clock, with which hosts need not agree; a run
-- that began later than now began before that clock was set back.
SELECT c.name
FROM unnest(%(names)s::text[], %(every)s::float8[]) WITH ORDINALITY AS c(name, every, place)
LEFT JOIN queueing_chorerun r ON r.name = c.name
WHERE (
        r.name IS NULL OR r.started_at > clock_timestamp()
        OR r.started_at <= clock_timestamp() - make_interval(secs => CASE
            WHEN r.finished_at >= r.started_at THEN c.every ELSE least(c.every, %(again)s::float8) END)
    )
    AND NOT EXISTS (
        SELECT FROM registry_lease l
        WHERE l.name = 'chore ' || c.name AND l.until > clock_timestamp() AND l.holder <> %(holder)s::text
    )
ORDER BY c.place;

-- name: began
-- Record that a chore begins.
INSERT INTO queueing_chorerun AS c (name, started_at) VALUES (%(name)s::text, now())
ON CONFLICT (name) DO UPDATE SET started_at = now();

-- name: ended
-- Record how the latest run of a chore ended. `found` is what a chore that checks something found wrong.
UPDATE queueing_chorerun SET finished_at = now(), error = %(error)s::text, found = %(found)s::text,
    succeeded_at = CASE WHEN %(error)s::text = '' THEN now() ELSE succeeded_at END,
    failing_since = CASE WHEN %(error)s::text = '' THEN NULL ELSE coalesce(failing_since, now()) END
WHERE name = %(name)s::text;

-- name: chores
-- The latest run of each chore, and when the first chore ever ran.
SELECT name, started_at, finished_at, succeeded_at, failing_since, error, found, (SELECT min(created_at) FROM queueing_chorerun)
FROM queueing_chorerun;

-- name: silent_for
-- Seconds since the last heartbeat of a queue's workers; null if there are none.
SELECT extract(epoch FROM now() - max(heartbeat_at))::float8 FROM queueing_worker WHERE queue = %(queue)s;
