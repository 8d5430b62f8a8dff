-- name: put_off
-- Jobs of dead workers that have lost an attempt before: queued again after a wait that grows with each loss, or failed after too
-- many; canceled where that was requested. The attempt does not count as one of the job's. Others only lose their lease, and are
-- claimed again at once. Locked in order, against deadlocks; rows that another worker locks are being put off by it, or settled.
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
), numbered AS (
    INSERT INTO queueing_jobstream AS s (tenant_id, position)
    SELECT tenant_id, count(*) FROM moved GROUP BY tenant_id ORDER BY tenant_id
    ON CONFLICT (tenant_id) DO UPDATE SET position = s.position + excluded.position
    RETURNING tenant_id, position
), events AS (
    INSERT INTO queueing_jobevent (tenant_id, position, job_id, sequence, status, attempt, at, code, detail, callback_due)
    SELECT m.tenant_id, n.position - row_number() OVER (PARTITION BY m.tenant_id ORDER BY m.id DESC) + 1, m.id, m.sequence, m.status,
        m.attempt, m.changed_at, m.error_code, m.error, m.status <> 'queued' AND m.callback_url <> ''
    FROM moved m JOIN numbered n USING (tenant_id)
    RETURNING tenant_id, job_id, position
)
SELECT m.tenant_id, m.id, e.position, m.uuid, m.kind, m.status, m.attempt, m.created_at, m.started_at, m.finished_at, m.changed_at,
    m.sequence, m.error_code, m.error, m.progress_done, m.progress_total, m.progress_message
FROM moved m JOIN events e ON e.tenant_id = m.tenant_id AND e.job_id = m.id;
