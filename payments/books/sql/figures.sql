-- name: unfinished
-- What is not settled, aged from acceptance (or from the time for which it was scheduled): the first `limit` open payments in the order
-- of their own index, in which workers take them, and whether there may be more. Payments that workers gave up are due at the end of time:
-- they are counted apart, and so are those that wait for their time or for their payer; of the last ones at most `limit`.
WITH open AS MATERIALIZED (
    SELECT run_at, leased_until, greatest(created_at, scheduled_for) AS accepted_at, scheduled_for
    FROM payments_payment WHERE tenant_id = %(tenant)s AND closed IS NULL
    ORDER BY priority DESC, run_at, id LIMIT %(limit)s
), sorted AS (
    SELECT accepted_at, CASE
        WHEN leased_until > now() THEN 'in progress'
        WHEN run_at = '9999-12-31Z' THEN 'given up'
        WHEN scheduled_for > now() THEN 'scheduled'
        WHEN run_at > now() THEN 'retrying'
        ELSE 'due' END AS part
    FROM open
)
SELECT count(*) FILTER (WHERE part = 'in progress'), count(*) FILTER (WHERE part = 'due'), count(*) FILTER (WHERE part = 'retrying'),
    count(*) FILTER (WHERE part = 'scheduled'), count(*) FILTER (WHERE part = 'given up'),
    (SELECT count(*) FROM (
        SELECT FROM payments_payment WHERE tenant_id = %(tenant)s AND closed = 'requires_action' LIMIT %(limit)s
    ) AS w),
    count(*) >= %(limit)s,
    coalesce(extract(epoch FROM now() - min(accepted_at) FILTER (WHERE part IN ('in progress', 'due', 'retrying'))), 0)
FROM sorted;

-- name: accepted
-- Payments of the last seconds, by the list's index.
SELECT count(*) FROM payments_payment WHERE tenant_id = %(tenant)s AND created_at > '0001-01-01Z'
    AND created_at > now() - make_interval(secs => %(over)s);

-- name: ended
-- Attempts by processor, state and bucket of time since a whole minute or hour.
SELECT processor_id, status, bucket, sum(attempts)::bigint
FROM payments_attemptrollup
WHERE tenant_id = %(tenant)s AND width = %(width)s AND starts_at >= %(since)s
GROUP BY processor_id, status, bucket
ORDER BY processor_id, status, bucket;

-- name: course
-- The same over time, in spans of `bin` seconds.
SELECT extract(epoch FROM date_bin(make_interval(secs => %(bin)s), starts_at, 'epoch'))::bigint AS at, processor_id,
    coalesce(sum(attempts) FILTER (WHERE status = 'succeeded'), 0)::bigint, coalesce(sum(attempts) FILTER (WHERE status = 'failed'), 0)::bigint,
    (sum(latency_ms) / nullif(sum(answers), 0))::float8
FROM payments_attemptrollup
WHERE tenant_id = %(tenant)s AND width = %(course_width)s AND starts_at >= %(since)s
GROUP BY at, processor_id
ORDER BY at;

-- name: trim
-- Delete statistics that no page shows any more, tenant by tenant: only that is an index's order.
DELETE FROM payments_attemptrollup WHERE ctid = ANY(ARRAY(
    SELECT r.ctid
    FROM registry_tenant t CROSS JOIN (VALUES (60, %(minutes)s::float8), (3600, %(hours)s::float8)) AS w (width, seconds)
    CROSS JOIN LATERAL (
        SELECT r.ctid FROM payments_attemptrollup r
        WHERE r.tenant_id = t.id AND r.width = w.width AND r.starts_at < now() - make_interval(secs => w.seconds)
        LIMIT %(limit)s
    ) r
    LIMIT %(limit)s
)) RETURNING 1;
