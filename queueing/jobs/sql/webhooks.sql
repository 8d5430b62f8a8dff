-- name: unread
-- Endpoints that have not read all of their tenant's events, those at the same number together. Without new events it reads a
-- few pages that are always in memory.
SELECT e.tenant_id, r.position, s.position, array_agg(e.id ORDER BY e.id)
FROM queueing_webhookendpoint e
CROSS JOIN LATERAL (SELECT coalesce((e.positions ->> 'jobs')::bigint, 0) AS position) r
JOIN queueing_job_latest s ON s.tenant_id = e.tenant_id AND s.position > r.position
WHERE e.enabled AND e.deleted_at IS NULL AND NOT e.callback
GROUP BY e.tenant_id, r.position, s.position
ORDER BY random()
LIMIT %(limit)s;

-- name: events
-- A range of a tenant's events without reports of progress, in the form of `JobChange`.
SELECT e.tenant_id, e.job_id, e.position, j.uuid, j.kind, e.status, e.attempt, j.created_at,
    CASE WHEN e.attempt > 0 THEN j.started_at END,
    CASE WHEN e.status IN ('succeeded', 'failed', 'canceled') THEN e.at END, e.at, e.sequence, e.code, e.detail
FROM queueing_jobevent e
CROSS JOIN LATERAL (  -- OFFSET 0: the planner must look up each job by its key, and not read all of the tenant's
    SELECT * FROM queueing_job j WHERE j.tenant_id = e.tenant_id AND j.id = e.job_id OFFSET 0
) j
WHERE e.tenant_id = %(tenant)s AND e.position > %(after)s AND e.position <= %(upto)s AND e.progress IS NULL
ORDER BY e.position;

-- name: owed
-- The tenant of an outcome whose callback is owed; by the order of the partial index, as `any_open` in work.sql.
SELECT tenant_id FROM queueing_jobevent WHERE callback_due ORDER BY tenant_id, position LIMIT 1;

-- name: callbacks
-- Outcomes whose callback is owed, marked as made, with its URL and in the form of `JobChange`. Another worker's are skipped.
WITH due AS MATERIALIZED (
    SELECT tenant_id, position FROM queueing_jobevent WHERE callback_due
    ORDER BY tenant_id, position LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED
), made AS (
    UPDATE queueing_jobevent e SET callback_due = false
    FROM due WHERE e.tenant_id = due.tenant_id AND e.position = due.position
    RETURNING e.*
)
SELECT e.tenant_id, j.callback_url,
    e.tenant_id, e.job_id, e.position, j.uuid, j.kind, e.status, e.attempt, j.created_at,
    CASE WHEN e.attempt > 0 THEN j.started_at END, e.at, e.at, e.sequence, e.code, e.detail
FROM made e
CROSS JOIN LATERAL (SELECT * FROM queueing_job j WHERE j.tenant_id = e.tenant_id AND j.id = e.job_id OFFSET 0) j
ORDER BY e.tenant_id, e.position;
