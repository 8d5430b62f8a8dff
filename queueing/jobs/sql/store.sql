-- name: accept
-- Insert a batch of jobs with one statement and one commit. Jobs whose id exists, or whose unique key is at work, are skipped and
-- not returned. In order of unique key, against deadlocks of two batches. Events are numbered last, so that the
-- tenants' streams are locked for a short time; in order of tenant. FULL JOIN: see lost.sql.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        %(tenant)b::bigint[], %(uuid)b::uuid[], %(kind)b::text[], %(input)b::text[], %(sealed)b::bytea[], %(fingerprint)b::bytea[],
        %(priority)b::bigint[], %(run_at)b::timestamptz[], %(unique_key)b::text[], %(max_attempts)b::bigint[],
        %(timeout_ms)b::bigint[], %(result_ttl)b::bigint[], %(callback_url)b::text[], %(schedule)b::bigint[], %(due_at)b::timestamptz[]
    ) WITH ORDINALITY AS t (tenant_id, uuid, kind, input, sealed, fingerprint, priority, run_at, unique_key, max_attempts,
        timeout_ms, result_ttl, callback_url, schedule_id, due_at, number)
), accepted AS (
    INSERT INTO queueing_job (tenant_id, uuid, kind, input, sealed, fingerprint, priority, run_at, unique_key, max_attempts,
        timeout, result_ttl, callback_url, schedule_id, due_at)
    SELECT tenant_id, uuid, kind, input, nullif(sealed, ''), fingerprint, priority, greatest(run_at, now()), unique_key,
        max_attempts, timeout_ms / 1000.0, result_ttl, callback_url, nullif(schedule_id, 0), due_at
    FROM input
    ORDER BY tenant_id, unique_key, number
    ON CONFLICT DO NOTHING
    RETURNING tenant_id, id, uuid, created_at
), numbered AS MATERIALIZED (
    SELECT tenant_id, queueing_job_number(tenant_id, events) AS position
    FROM (SELECT tenant_id, count(*) AS events FROM accepted GROUP BY tenant_id ORDER BY tenant_id OFFSET 0) t
), placed AS (
    SELECT a.*, n.position - count(*) OVER (PARTITION BY a.tenant_id) + row_number() OVER (PARTITION BY a.tenant_id ORDER BY a.id) AS position
    FROM accepted a FULL JOIN numbered n ON n.tenant_id = a.tenant_id
), events AS (
    INSERT INTO queueing_jobevent (tenant_id, position, job_id, sequence, status, at)
    SELECT tenant_id, position, id, 1, 'queued', created_at FROM placed
)
SELECT tenant_id, uuid, created_at, position FROM placed;

-- name: existing
-- The jobs that exist under these ids; a replay has the same fingerprint.
SELECT j.tenant_id, j.uuid, j.fingerprint, j.created_at
FROM unnest(%(tenant)b::bigint[], %(uuid)b::uuid[]) AS t (tenant_id, uuid)
JOIN queueing_job j ON j.uuid = t.uuid AND j.tenant_id + 0 = t.tenant_id
WHERE t.tenant_id BETWEEN 1 AND 9223372036854775807;

-- name: at_work
-- The open jobs with these unique keys.
SELECT j.tenant_id, j.kind, j.unique_key, j.uuid, j.created_at
FROM unnest(%(tenant)b::bigint[], %(kind)b::text[], %(unique_key)b::text[]) AS t (tenant_id, kind, unique_key)
CROSS JOIN LATERAL (
    SELECT * FROM queueing_job o
    WHERE o.unique_key = t.unique_key AND o.kind = t.kind AND o.tenant_id + 0 = t.tenant_id AND o.closed IS NULL
    OFFSET 0
) j;
