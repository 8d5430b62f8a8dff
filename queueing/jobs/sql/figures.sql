-- name: counts
-- Jobs of a tenant by state. Open and failed ones are counted by their indexes, the others among the newest `most` jobs, so that a
-- count is cheap however many there are. Last: seconds that the oldest has been due, and how many of the newest were read.
WITH open AS (
    SELECT status, run_at FROM queueing_job
    WHERE tenant_id = %(tenant)s AND closed IS NULL
    ORDER BY tenant_id, kind, priority DESC, run_at, id LIMIT %(most)s
), failed AS (
    SELECT id FROM queueing_job WHERE tenant_id = %(tenant)s AND closed = 'failed' ORDER BY id DESC LIMIT %(most)s
), newest AS (
    SELECT closed FROM queueing_job WHERE tenant_id = %(tenant)s ORDER BY created_at DESC, id DESC LIMIT %(most)s
)
SELECT o.queued, o.running, n.succeeded, (SELECT count(*) FROM failed), n.canceled, o.oldest, n.total
FROM (
    SELECT count(*) FILTER (WHERE status = 'queued') AS queued, count(*) FILTER (WHERE status = 'running') AS running,
        coalesce(extract(epoch FROM now() - min(run_at) FILTER (WHERE status = 'queued' AND run_at <= now())), 0)::float8 AS oldest
    FROM open
) o, (
    SELECT count(*) FILTER (WHERE closed = 'succeeded') AS succeeded, count(*) FILTER (WHERE closed = 'canceled') AS canceled,
        count(*) AS total
    FROM newest
) n;

-- name: minutes
-- Jobs submitted, succeeded, failed and canceled per minute of the last hour, from the newest `most` events of the tenant; and
-- whether all of the minute's events were read.
SELECT extract(epoch FROM date_trunc('minute', at))::bigint, count(*) FILTER (WHERE sequence = 1),
    count(*) FILTER (WHERE status = 'succeeded'), count(*) FILTER (WHERE status = 'failed'),
    count(*) FILTER (WHERE status = 'canceled'), max(age) < %(most)s
FROM (
    SELECT at, sequence, status, row_number() OVER (ORDER BY position DESC) AS age FROM queueing_jobevent
    WHERE tenant_id = %(tenant)s ORDER BY position DESC LIMIT %(most)s
) e
WHERE at >= now() - interval '1 hour'
GROUP BY 1 ORDER BY 1;

-- name: held
-- Jobs that these workers run now, among the first open ones of each tenant and kind in the order of claims: those are leased.
WITH RECURSIVE shares AS (
    (SELECT tenant_id, kind FROM queueing_job WHERE closed IS NULL ORDER BY tenant_id, kind, priority DESC, run_at, id LIMIT 1)
    UNION ALL
    SELECT n.tenant_id, n.kind
    FROM shares s CROSS JOIN LATERAL (
        SELECT j.tenant_id, j.kind FROM queueing_job j
        WHERE j.closed IS NULL AND (j.tenant_id, j.kind) > (s.tenant_id, s.kind)
        ORDER BY j.tenant_id, j.kind, j.priority DESC, j.run_at, j.id LIMIT 1
    ) n
)
SELECT j.lease_id, t.slug, j.uuid, j.kind, j.attempt - j.handed_back, j.started_at
FROM shares s CROSS JOIN LATERAL (
    SELECT * FROM queueing_job o WHERE o.tenant_id = s.tenant_id AND o.kind = s.kind AND o.closed IS NULL
    ORDER BY o.priority DESC, o.run_at, o.id LIMIT %(sample)s
) j
JOIN registry_tenant t ON t.id = j.tenant_id
WHERE j.lease_id = ANY(%(workers)s::bigint[]) AND j.leased_until >= now()
ORDER BY j.started_at, j.id;
