-- name: due
-- Tenants and kinds with due jobs, in random order: a loose index scan, as in the template of work.sql, by tenant and kind. Kinds
-- for which this worker takes no more jobs are left out. `above` and `below`: see work.sql.
WITH RECURSIVE waiting AS (
    (SELECT tenant_id, kind FROM queueing_job
     WHERE closed IS NULL AND run_at >= coalesce(now() - make_interval(secs => %(above)s::float8), '-infinity')
     ORDER BY tenant_id, kind, priority DESC, run_at, id LIMIT 1)
    UNION ALL
    SELECT n.tenant_id, n.kind
    FROM waiting w CROSS JOIN LATERAL (
        SELECT j.tenant_id, j.kind FROM queueing_job j
        WHERE j.closed IS NULL AND (j.tenant_id, j.kind) > (w.tenant_id, w.kind)
          AND j.run_at >= coalesce(now() - make_interval(secs => %(above)s::float8), '-infinity')
        ORDER BY j.tenant_id, j.kind, j.priority DESC, j.run_at, j.id LIMIT 1
    ) n
)
SELECT w.tenant_id, w.kind
FROM waiting w
WHERE w.kind = ANY(%(kinds)s::text[]) AND (
    SELECT true FROM queueing_job d
    WHERE d.tenant_id = w.tenant_id AND d.kind = w.kind AND d.closed IS NULL
      AND d.run_at >= coalesce(now() - make_interval(secs => %(above)s::float8), '-infinity')
      AND d.run_at <= now() - make_interval(secs => %(below)s::float8)
      AND (d.leased_until IS NULL OR d.leased_until < now())
    ORDER BY d.priority DESC, d.run_at, d.id LIMIT 1
)
ORDER BY random()
LIMIT %(limit)s;

-- name: take
-- Lease due jobs, at most `quota` of each tenant and kind, and number their events: one statement and one commit. A job that was
-- running is one whose worker died: the lost attempt counts among `lost_attempts` only. If the job has lost too many, or was canceled
-- meanwhile, it begins no other attempt: the worker only closes it.
WITH due AS MATERIALIZED (
    SELECT p.*
    FROM unnest(%(tenants)b::bigint[], %(kinds)b::text[], %(quotas)b::bigint[]) AS t (tenant_id, kind, quota)
    CROSS JOIN LATERAL (
        SELECT tenant_id, id, status = 'running' AS cut_off,
            cancel_requested OR (status = 'running' AND lost_attempts + 1 >= %(most_lost)s) AS over
        FROM queueing_job j
        WHERE j.tenant_id = t.tenant_id AND j.kind = t.kind AND j.closed IS NULL
          AND j.run_at >= coalesce(now() - make_interval(secs => %(above)s::float8), '-infinity') AND j.run_at <= now()
          AND (j.leased_until IS NULL OR j.leased_until < now())
        ORDER BY j.priority DESC, j.run_at, j.id
        LIMIT t.quota
        FOR UPDATE SKIP LOCKED
    ) p
    WHERE t.tenant_id BETWEEN 1 AND 9223372036854775807
), claimed AS (
    UPDATE queueing_job j
    SET status = 'running', attempt = attempt + (NOT over)::int, sequence = sequence + 1,
        tries_from = tries_from + (cut_off AND NOT over)::int, lost_attempts = lost_attempts + cut_off::int,
        lease_id = %(worker)s, leased_until = now() + make_interval(secs => %(lease)s), started_at = now(), changed_at = now()
    FROM due
    WHERE j.tenant_id = due.tenant_id AND j.id = due.id AND due.tenant_id BETWEEN 1 AND 9223372036854775807
    RETURNING j.tenant_id, j.id, j.uuid, j.kind, j.input, j.sealed, j.attempt, j.tries_from, j.max_attempts, j.timeout, j.result_ttl, j.sequence,
        j.created_at, j.started_at, j.cancel_requested, due.over, due.cut_off, j.attempt - j.handed_back AS shown, j.run_at
), numbered AS MATERIALIZED (
    SELECT tenant_id, queueing_job_number(tenant_id, events) AS position
    FROM (SELECT tenant_id, count(*) AS events FROM claimed GROUP BY tenant_id ORDER BY tenant_id OFFSET 0) t
), placed AS (
    SELECT c.*, n.position - count(*) OVER (PARTITION BY c.tenant_id) + row_number() OVER (PARTITION BY c.tenant_id ORDER BY c.id) AS position
    FROM claimed c FULL JOIN numbered n ON n.tenant_id = c.tenant_id
), events AS (
    INSERT INTO queueing_jobevent (tenant_id, position, job_id, sequence, status, attempt, at, code, detail)
    SELECT tenant_id, position, id, sequence, 'running', shown, started_at, CASE WHEN cut_off THEN 'worker_lost' ELSE '' END,
        CASE WHEN cut_off THEN 'the worker of the attempt before was lost' ELSE '' END
    FROM placed
)
SELECT * FROM placed;

-- name: limits
-- Lock the kinds whose number of running jobs or whose rate is limited, one after the other: claims of other workers wait.
SELECT kind, greatest(0, extract(epoch FROM next_start_at - now()))::float8
FROM queueing_joblimit WHERE kind = ANY(%(kinds)s::text[]) ORDER BY kind FOR UPDATE;

-- name: add_limits
INSERT INTO queueing_joblimit (kind) SELECT unnest(%(kinds)s::text[]) ON CONFLICT DO NOTHING;

-- name: slots
-- Running jobs of these kinds, by tenant. Slots of jobs that do not run any more are removed.
WITH held AS (
    SELECT s.tenant_id, s.job_id, s.attempt, s.kind, j.id IS NOT NULL AS running
    FROM queueing_jobslot s
    LEFT JOIN LATERAL (
        SELECT id FROM queueing_job j WHERE j.tenant_id = s.tenant_id AND j.id = s.job_id AND j.attempt = s.attempt
            AND coalesce(j.closed, '') = '' AND j.leased_until >= now()
        OFFSET 0
    ) j ON true
    WHERE s.kind = ANY(%(kinds)s::text[])
), removed AS (
    DELETE FROM queueing_jobslot s USING held h
    WHERE NOT h.running AND s.tenant_id = h.tenant_id AND s.job_id = h.job_id AND s.attempt = h.attempt
)
SELECT kind, tenant_id, count(*) FROM held WHERE running GROUP BY kind, tenant_id;

-- name: hold
-- Take slots for claimed jobs, and move the start of the next job of kinds with a rate by the interval of so many jobs.
WITH slots AS (
    INSERT INTO queueing_jobslot (tenant_id, job_id, attempt, kind)
    SELECT * FROM unnest(%(tenant)s::bigint[], %(job)s::bigint[], %(attempt)s::int[], %(kind)s::text[])
    ON CONFLICT DO NOTHING
)
UPDATE queueing_joblimit l
SET next_start_at = greatest(next_start_at, now()) + make_interval(secs => r.seconds)
FROM unnest(%(rated)s::text[], %(seconds)s::float8[]) AS r (kind, seconds)
WHERE l.kind = r.kind;

-- name: settle
-- Write outcomes with one commit, fenced by worker and attempt, and only while the lease is valid: otherwise the job is another
-- worker's. A job that is queued again is canceled instead if that was requested meanwhile. The rows are locked in the order of the
-- input, against deadlocks. A result that is null is not stored: a job that has succeeded without one has that. An outcome that has a
-- callback is marked as owed (docs/decisions/031).
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        %(tenant)b::bigint[], %(job)b::bigint[], %(attempt)b::bigint[], %(status)b::text[], %(wait)b::float8[], %(code)b::text[],
        %(error)b::text[], %(traceback)b::text[], %(result)b::text[], %(uncounted)b::bigint[], %(done)b::bigint[],
        %(total)b::bigint[], %(message)b::text[]
    ) AS t (tenant_id, job_id, attempt, status, wait, code, error, traceback, result, uncounted, done, total, message)
    WHERE tenant_id BETWEEN 1 AND 9223372036854775807
    ORDER BY tenant_id, job_id
), moved AS (
    UPDATE queueing_job j
    SET status = CASE WHEN i.status = 'queued' AND j.cancel_requested THEN 'canceled' ELSE i.status END,
        sequence = j.sequence + 1, changed_at = now(), lease_id = NULL, leased_until = NULL,
        run_at = CASE WHEN i.status = 'queued' AND NOT j.cancel_requested THEN now() + make_interval(secs => coalesce(i.wait, 0)) ELSE j.run_at END,
        tries_from = j.tries_from + coalesce(i.uncounted, 0)::int, handed_back = j.handed_back + coalesce(i.uncounted, 0)::int,
        finished_at = CASE WHEN i.status <> 'queued' OR j.cancel_requested THEN now() END,
        error_code = coalesce(i.code, ''), error = coalesce(i.error, ''), traceback = coalesce(i.traceback, ''),
        progress_done = coalesce(i.done, j.progress_done), progress_total = CASE WHEN i.done IS NULL THEN j.progress_total ELSE i.total END,
        progress_message = CASE WHEN i.done IS NULL THEN j.progress_message ELSE coalesce(i.message, '') END
    FROM input i
    WHERE j.tenant_id = i.tenant_id AND j.id = i.job_id AND j.lease_id = %(worker)s AND j.attempt = i.attempt AND j.status = 'running'
      AND j.leased_until >= now()
    RETURNING j.tenant_id, j.id, j.status, j.sequence, j.attempt - j.handed_back AS attempt, j.changed_at, j.result_ttl, j.callback_url,
        j.error_code, j.error, j.progress_done, j.progress_total, j.progress_message, i.result
), results AS (
    INSERT INTO queueing_jobresult (tenant_id, job_id, body, expires_at)
    SELECT tenant_id, id, result, now() + make_interval(secs => result_ttl) FROM moved WHERE status = 'succeeded' AND result IS NOT NULL
    ON CONFLICT (tenant_id, job_id) DO UPDATE SET body = excluded.body, expires_at = excluded.expires_at
), numbered AS MATERIALIZED (
    SELECT tenant_id, queueing_job_number(tenant_id, events) AS position
    FROM (SELECT tenant_id, count(*) AS events FROM moved GROUP BY tenant_id ORDER BY tenant_id OFFSET 0) t
), placed AS (
    SELECT m.*, n.position - count(*) OVER (PARTITION BY m.tenant_id) + row_number() OVER (PARTITION BY m.tenant_id ORDER BY m.id) AS position
    FROM moved m FULL JOIN numbered n ON n.tenant_id = m.tenant_id
), events AS (
    INSERT INTO queueing_jobevent (tenant_id, position, job_id, sequence, status, attempt, at, code, detail, callback_due)
    SELECT tenant_id, position, id, sequence, status, attempt, changed_at, error_code, error, status <> 'queued' AND callback_url <> ''
    FROM placed
)
SELECT tenant_id, id, position, status, attempt, changed_at, sequence, progress_done, progress_total, progress_message FROM placed;

-- name: watch
-- Of the jobs that this worker runs: those that it has lost, and those whose cancellation was requested.
SELECT t.tenant_id, t.job_id, j.id IS NULL
FROM unnest(%(tenant)b::bigint[], %(job)b::bigint[], %(attempt)b::bigint[]) AS t (tenant_id, job_id, attempt)
LEFT JOIN queueing_job j ON j.tenant_id = t.tenant_id AND j.id = t.job_id AND j.attempt = t.attempt AND j.lease_id = %(worker)s
    AND j.leased_until >= now()
WHERE (j.id IS NULL OR j.cancel_requested) AND t.tenant_id BETWEEN 1 AND 9223372036854775807;

-- name: extend
-- Extend the leases of the jobs that this worker runs, if they are valid still. Rows that are being settled need none.
WITH held AS MATERIALIZED (
    SELECT j.tenant_id, j.id
    FROM unnest(%(tenant)b::bigint[], %(job)b::bigint[], %(attempt)b::bigint[]) AS t (tenant_id, job_id, attempt)
    JOIN queueing_job j ON j.tenant_id = t.tenant_id AND j.id = t.job_id
    WHERE j.attempt = t.attempt AND j.lease_id = %(worker)s AND j.leased_until >= now() AND t.tenant_id BETWEEN 1 AND 9223372036854775807
    FOR UPDATE OF j SKIP LOCKED
)
UPDATE queueing_job j SET leased_until = now() + make_interval(secs => %(lease)s)
FROM held h WHERE j.tenant_id = h.tenant_id AND j.id = h.id;

-- name: report
-- Write reports of progress of running jobs, and number their events. Locked in order, as outcomes are. FULL JOIN: see lost.sql.
WITH held AS MATERIALIZED (
    SELECT j.tenant_id, j.id, t.attempt, t.done, t.total, t.message
    FROM unnest(%(tenant)b::bigint[], %(job)b::bigint[], %(attempt)b::bigint[], %(done)b::bigint[], %(total)b::bigint[],
        %(message)b::text[]) AS t (tenant_id, job_id, attempt, done, total, message)
    JOIN queueing_job j ON j.tenant_id = t.tenant_id AND j.id = t.job_id
    WHERE t.tenant_id BETWEEN 1 AND 9223372036854775807
    ORDER BY j.tenant_id, j.id
    FOR UPDATE OF j
), moved AS (
    UPDATE queueing_job j
    SET progress_done = h.done, progress_total = h.total, progress_message = h.message, sequence = j.sequence + 1, changed_at = now()
    FROM held h
    WHERE j.tenant_id = h.tenant_id AND j.id = h.id AND j.attempt = h.attempt AND j.lease_id = %(worker)s AND j.leased_until >= now()
    RETURNING j.tenant_id, j.id, j.uuid, j.kind, j.status, j.sequence, j.attempt - j.handed_back AS attempt, j.changed_at, j.created_at, j.started_at,
        j.progress_done, j.progress_total, j.progress_message
), numbered AS MATERIALIZED (
    SELECT tenant_id, queueing_job_number(tenant_id, events) AS position
    FROM (SELECT tenant_id, count(*) AS events FROM moved GROUP BY tenant_id ORDER BY tenant_id OFFSET 0) t
), placed AS (
    SELECT m.*, n.position - row_number() OVER (PARTITION BY m.tenant_id ORDER BY m.id DESC) + 1 AS position
    FROM moved m FULL JOIN numbered n ON n.tenant_id = m.tenant_id
), events AS (
    INSERT INTO queueing_jobevent (tenant_id, position, job_id, sequence, status, attempt, at, progress)
    SELECT tenant_id, position, id, sequence, status, attempt, changed_at,
        jsonb_build_object('done', progress_done, 'total', progress_total, 'message', progress_message)
    FROM placed
)
SELECT tenant_id, id, position, uuid, kind, status, attempt, created_at, started_at, NULL::timestamptz, changed_at, sequence, '', '',
    progress_done, progress_total, progress_message
FROM placed;

-- name: cancel
-- Cancel a queued job, or request the cancellation of a running one, which its worker carries out. Compare and set: a claim or an
-- outcome may win. Returns the status before, and the event of a job that was queued.
WITH held AS MATERIALIZED (
    SELECT tenant_id, id, status FROM queueing_job WHERE uuid = %(uuid)s AND tenant_id + 0 = %(tenant)s FOR UPDATE
), moved AS (
    UPDATE queueing_job j
    SET status = CASE h.status WHEN 'queued' THEN 'canceled' ELSE j.status END, cancel_requested = true,
        sequence = j.sequence + (h.status = 'queued')::int, changed_at = now(),
        finished_at = CASE h.status WHEN 'queued' THEN now() END, error_code = '', error = '', traceback = ''
    FROM held h
    WHERE j.tenant_id = h.tenant_id AND j.id = h.id AND h.status IN ('queued', 'running')
    RETURNING j.tenant_id, j.id, j.uuid, j.kind, j.status, j.sequence, j.attempt - j.handed_back AS attempt, j.changed_at,
        j.created_at, j.started_at, j.finished_at, j.callback_url, j.progress_done, j.progress_total, j.progress_message
), numbered AS MATERIALIZED (
    SELECT tenant_id, queueing_job_number(tenant_id, 1) AS position FROM moved WHERE status = 'canceled'
), event AS (
    INSERT INTO queueing_jobevent (tenant_id, position, job_id, sequence, status, attempt, at, callback_due)
    SELECT m.tenant_id, n.position, m.id, m.sequence, m.status, m.attempt, m.changed_at, m.callback_url <> ''
    FROM moved m JOIN numbered n USING (tenant_id)
    RETURNING position
)
SELECT h.status, m.tenant_id, m.id, e.position, m.uuid, m.kind, m.status, m.attempt, m.created_at, m.started_at, m.finished_at,
    m.changed_at, m.sequence, '', '', m.progress_done, m.progress_total, m.progress_message
FROM held h LEFT JOIN moved m ON true LEFT JOIN event e ON true;

-- name: retry
-- Queue a failed job again with all of its attempts. The attempt number stays, because the fence only grows.
WITH held AS MATERIALIZED (
    SELECT tenant_id, id, status FROM queueing_job WHERE uuid = %(uuid)s AND tenant_id + 0 = %(tenant)s FOR UPDATE
), moved AS (
    UPDATE queueing_job j
    SET status = 'queued', sequence = j.sequence + 1, changed_at = now(), run_at = now(), tries_from = j.attempt,
        lost_attempts = 0, finished_at = NULL, error_code = '', error = '', traceback = '', cancel_requested = false
    FROM held h
    WHERE j.tenant_id = h.tenant_id AND j.id = h.id AND h.status = 'failed'
    RETURNING j.tenant_id, j.id, j.uuid, j.kind, j.status, j.sequence, j.attempt - j.handed_back AS attempt, j.changed_at,
        j.created_at, j.started_at, j.finished_at, j.progress_done, j.progress_total, j.progress_message
), numbered AS MATERIALIZED (
    SELECT tenant_id, queueing_job_number(tenant_id, 1) AS position FROM moved
), event AS (
    INSERT INTO queueing_jobevent (tenant_id, position, job_id, sequence, status, attempt, at, detail)
    SELECT m.tenant_id, n.position, m.id, m.sequence, m.status, m.attempt, m.changed_at, %(detail)s
    FROM moved m JOIN numbered n USING (tenant_id)
    RETURNING position
)
SELECT h.status, m.tenant_id, m.id, e.position, m.uuid, m.kind, m.status, m.attempt, m.created_at, m.started_at, m.finished_at,
    m.changed_at, m.sequence, '', '', m.progress_done, m.progress_total, m.progress_message
FROM held h LEFT JOIN moved m ON true LEFT JOIN event e ON true;

-- name: depth_of_kind
-- Open jobs of one kind that are due, leased and scheduled, of at most `sample`; and the seconds for which the oldest has been due.
SELECT count(*) FILTER (WHERE run_at <= now() AND (leased_until IS NULL OR leased_until < now())),
       count(*) FILTER (WHERE leased_until >= now()),
       count(*) FILTER (WHERE run_at > now()),
       coalesce(extract(epoch FROM now() - min(run_at) FILTER (WHERE run_at <= now() AND leased_until IS NULL)), 0)::float8
FROM (
    SELECT j.run_at, j.leased_until
    FROM registry_tenant t CROSS JOIN LATERAL (
        SELECT * FROM queueing_job j WHERE j.tenant_id = t.id AND j.kind = %(kind)s AND j.closed IS NULL
        ORDER BY j.priority DESC, j.run_at, j.id LIMIT %(sample)s
    ) j
    LIMIT %(sample)s
) open;
