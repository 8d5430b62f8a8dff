-- name: put_off
-- Jobs of dead workers that have lost an attempt before: queued again after a wait that grows with each loss, or failed after too
-- many; canceled where that was requested. The attempt does not count as one of the job's. Others only lose their lease, and are
-- claimed again at once. Locked in order, against deadlocks; rows that another worker locks are being put off by it, or settled.
-- FULL JOIN: each row of one side has one of the other, and PostgreSQL does it by a hash or a sort. The planner expects one row, and
-- would join a thousand jobs with a thousand tenants by comparing all pairs.
WITH held AS MATERIALIZED (
    SELECT tenant_id, id,
        CASE WHEN cancel_requested THEN 'canceled' WHEN lost_attempts + 1 >= %(most)s THEN 'failed' ELSE 'queued' END AS next,
        (%(waits)s::float8[])[least(lost_attempts, cardinality(%(waits)s::float8[]))] * (1 + %(jitter)s * (2 * random() - 1)) AS wait
    FROM queueing_job
    WHERE closed IS NULL AND lease_id = ANY(%(workers)s::bigint[]) AND status = 'running' AND lost_attempts > 0
    ORDER BY tenant_id, id
    FOR UPDATE SKIP LOCKED
), moved AS (
    UPDATE queueing_job j
    SET status = h.next, sequence = j.sequence + 1, changed_at = now(), lease_id = NULL, leased_until = NULL,
        tries_from = j.tries_from + (h.next = 'queued')::int, lost_attempts = j.lost_attempts + 1,
        run_at = CASE h.next WHEN 'queued' THEN now() + make_interval(secs => h.wait) ELSE j.run_at END,
        finished_at = CASE WHEN h.next <> 'queued' THEN now() END,
        error_code = CASE h.next WHEN 'canceled' THEN '' ELSE %(code)s END,
        error = CASE h.next WHEN 'canceled' THEN '' WHEN 'failed' THEN %(given_up)s ELSE %(lost)s END, traceback = ''
    FROM held h
    WHERE j.tenant_id = h.tenant_id AND j.id = h.id
    RETURNING j.tenant_id, j.id, j.uuid, j.kind, j.status, j.sequence, j.attempt - j.handed_back AS attempt, j.changed_at, j.created_at,
        j.started_at, j.finished_at, j.callback_url, j.error_code, j.error, j.progress_done, j.progress_total, j.progress_message
), numbered AS MATERIALIZED (
    SELECT tenant_id, queueing_job_number(tenant_id, events) AS position
    FROM (SELECT tenant_id, count(*) AS events FROM moved GROUP BY tenant_id ORDER BY tenant_id OFFSET 0) t
), placed AS (
    SELECT m.*, n.position - row_number() OVER (PARTITION BY m.tenant_id ORDER BY m.id DESC) + 1 AS position
    FROM moved m FULL JOIN numbered n ON n.tenant_id = m.tenant_id
), events AS (
    INSERT INTO queueing_jobevent (tenant_id, position, job_id, sequence, status, attempt, at, code, detail, callback_due)
    SELECT tenant_id, position, id, sequence, status, attempt, changed_at, error_code, error, status <> 'queued' AND callback_url <> ''
    FROM placed
)
SELECT tenant_id, id, position, uuid, kind, status, attempt, created_at, started_at, finished_at, changed_at, sequence, error_code,
    error, progress_done, progress_total, progress_message
FROM placed;
