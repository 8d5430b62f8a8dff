-- name: close_tenant
-- Cancel the queued jobs of a tenant that is closed, request the cancellation of those that run, pause its schedules, and let its
-- files expire.
WITH schedules AS (
    UPDATE queueing_jobschedule SET paused = true, next_at = NULL WHERE tenant_id = %(tenant)s AND NOT paused
), files AS (
    UPDATE queueing_jobfile SET expires_at = now() WHERE tenant_id = %(tenant)s AND expires_at > now()
), held AS MATERIALIZED (
    SELECT tenant_id, id, status FROM queueing_job WHERE tenant_id = %(tenant)s AND closed IS NULL ORDER BY id FOR UPDATE
), changed AS (
    UPDATE queueing_job j
    SET cancel_requested = true, status = CASE h.status WHEN 'queued' THEN 'canceled' ELSE j.status END,
        sequence = j.sequence + (h.status = 'queued')::int, changed_at = now(),
        finished_at = CASE h.status WHEN 'queued' THEN now() END
    FROM held h WHERE j.tenant_id = h.tenant_id AND j.id = h.id
    RETURNING j.tenant_id, j.id, j.status, j.sequence, j.attempt - j.handed_back AS attempt, j.changed_at
), canceled AS (
    SELECT * FROM changed WHERE status = 'canceled'
), numbered AS MATERIALIZED (
    SELECT tenant_id, queueing_job_number(tenant_id, events) AS position
    FROM (SELECT tenant_id, count(*) AS events FROM canceled GROUP BY tenant_id ORDER BY tenant_id OFFSET 0) t
)
INSERT INTO queueing_jobevent (tenant_id, position, job_id, sequence, status, attempt, at)
SELECT c.tenant_id, n.position - row_number() OVER (ORDER BY c.id DESC) + 1, c.id, c.sequence, c.status, c.attempt, c.changed_at
FROM canceled c JOIN numbered n USING (tenant_id);

-- name: open_jobs
SELECT count(*) FROM queueing_job WHERE tenant_id = %(tenant)s AND closed IS NULL;
