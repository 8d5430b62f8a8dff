-- name: since
-- A tenant's job events after a number, in the form that `events.from_row` reads. Numbers follow commit order.
SELECT e.tenant_id, e.job_id, e.position, j.uuid, j.kind, e.status, e.attempt, j.created_at,
    (SELECT s.at FROM queueing_jobevent s
     WHERE s.job_id = e.job_id AND s.tenant_id = e.tenant_id AND s.sequence <= e.sequence AND s.status = 'running' AND s.progress IS NULL
     ORDER BY s.sequence DESC LIMIT 1),
    CASE WHEN e.status IN ('succeeded', 'failed', 'canceled') THEN e.at END, e.at, e.sequence, e.code, e.detail,
    (e.progress->>'done')::bigint, (e.progress->>'total')::bigint, coalesce(e.progress->>'message', '')
FROM (
    SELECT * FROM queueing_jobevent WHERE tenant_id = %(tenant)s AND position > %(after)s ORDER BY position LIMIT %(limit)s
) e
CROSS JOIN LATERAL (  -- one look-up per event; OFFSET 0 keeps the planner from reading all jobs of the tenant
    SELECT * FROM queueing_job j WHERE j.tenant_id = e.tenant_id AND j.id = e.job_id OFFSET 0
) j
ORDER BY e.position;

-- name: of_job
SELECT e.tenant_id, e.job_id, e.position, j.uuid, j.kind, e.status, e.attempt, j.created_at,
    (SELECT s.at FROM queueing_jobevent s
     WHERE s.job_id = e.job_id AND s.tenant_id = e.tenant_id AND s.sequence <= e.sequence AND s.status = 'running' AND s.progress IS NULL
     ORDER BY s.sequence DESC LIMIT 1),
    CASE WHEN e.status IN ('succeeded', 'failed', 'canceled') THEN e.at END, e.at, e.sequence, e.code, e.detail,
    (e.progress->>'done')::bigint, (e.progress->>'total')::bigint, coalesce(e.progress->>'message', '')
FROM queueing_job j
CROSS JOIN LATERAL (
    SELECT * FROM queueing_jobevent e WHERE e.job_id = j.id AND e.tenant_id + 0 = j.tenant_id AND e.sequence > %(after)s OFFSET 0
) e
WHERE j.uuid = %(uuid)s AND j.tenant_id + 0 = %(tenant)s
ORDER BY e.sequence;

-- name: positions
SELECT tenant_id, position FROM queueing_job_latest WHERE tenant_id = ANY(%(tenants)s);
