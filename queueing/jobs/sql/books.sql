-- Statements of check_books. Each compares within one snapshot, with one look-up per row (docs/decisions/024).

-- name: page
SELECT max(id), count(*) FROM (
    SELECT id FROM queueing_job WHERE tenant_id = %(tenant)s AND id > %(after)s ORDER BY tenant_id, id LIMIT %(limit)s
) page;

-- name: last
SELECT id FROM queueing_job WHERE tenant_id = %(tenant)s ORDER BY tenant_id DESC, id DESC LIMIT 1;

-- name: jobs
-- Jobs that differ from their events: numbers 1 to the job's sequence, each once, and the last one with its status.
WITH slice AS MATERIALIZED (
    SELECT id, uuid, status, sequence FROM queueing_job WHERE tenant_id = %(tenant)s AND id > %(after)s AND id <= %(last)s
)
SELECT j.uuid, j.status, j.sequence, e.n, e.numbers, e.last_status
FROM slice j
CROSS JOIN LATERAL (
    SELECT count(*) AS n, coalesce(array_agg(e.sequence ORDER BY e.sequence), '{}') AS numbers, min(e.sequence) AS first,
        max(e.sequence) AS last, max(e.status) FILTER (WHERE e.sequence = j.sequence) AS last_status
    FROM queueing_jobevent e WHERE e.job_id = j.id AND e.tenant_id + 0 = %(tenant)s
) e
WHERE e.n <> j.sequence OR e.first IS DISTINCT FROM 1 OR e.last IS DISTINCT FROM j.sequence OR e.last_status IS DISTINCT FROM j.status
ORDER BY j.id;

-- name: event_page
SELECT max(position), count(*) FROM (
    SELECT position FROM queueing_jobevent WHERE tenant_id = %(tenant)s AND position > %(after)s
    ORDER BY tenant_id, position LIMIT %(limit)s
) page;

-- name: event_last
SELECT position FROM queueing_jobevent WHERE tenant_id = %(tenant)s ORDER BY tenant_id DESC, position DESC LIMIT 1;

-- name: events
-- Events without a job. Numbers may be missing: jobs are deleted with their events when they have been kept long enough.
SELECT e.position, e.job_id
FROM queueing_jobevent e
LEFT JOIN LATERAL (
    SELECT j.id FROM queueing_job j WHERE j.tenant_id = %(tenant)s AND j.id = e.job_id OFFSET 0
) j ON true
WHERE e.tenant_id = %(tenant)s AND e.position > %(after)s AND e.position <= %(last)s AND j.id IS NULL
ORDER BY e.position;
