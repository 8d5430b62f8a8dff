-- name: expired_results
DELETE FROM queueing_jobresult WHERE ctid = ANY(ARRAY(
    SELECT ctid FROM queueing_jobresult WHERE expires_at < now() ORDER BY expires_at LIMIT %(limit)s
))
RETURNING job_id;

-- name: finished
-- Delete the next page of jobs that ended with this status `days` ago, with their events, in order of their end. A job whose result
-- has not expired stays, and so does one that is queued again at this moment. Returns the page, and whether each job was deleted.
-- One look-up of events per job (by OFFSET 0) and by ctid: without statistics, one look-up of all would read all events.
WITH page AS MATERIALIZED (
    SELECT tenant_id, id, finished_at FROM queueing_job
    WHERE closed = %(status)s AND finished_at < now() - make_interval(days => %(days)s::int)
      AND (finished_at, id) > (%(after)s::timestamptz, %(after_id)s::bigint)
    ORDER BY finished_at, id LIMIT %(limit)s
), deleted AS (
    DELETE FROM queueing_job j USING page p
    WHERE j.tenant_id = p.tenant_id AND j.id = p.id AND j.closed = %(status)s AND NOT EXISTS (
        SELECT FROM queueing_jobresult r WHERE r.tenant_id = p.tenant_id AND r.job_id = p.id
    ) AND (j.closed <> 'succeeded' OR j.finished_at <= now() - make_interval(secs => j.result_ttl))
    RETURNING j.tenant_id, j.id
), events AS (
    DELETE FROM queueing_jobevent WHERE ctid = ANY(ARRAY(
        SELECT e.ctid FROM deleted d CROSS JOIN LATERAL (
            SELECT c.ctid FROM queueing_jobevent c WHERE c.job_id = d.id AND c.tenant_id + 0 = d.tenant_id OFFSET 0
        ) e
    ))
    RETURNING tenant_id, position
), held AS MATERIALIZED (  -- so that the numbers of deleted events are not given again
    SELECT s.tenant_id, l.position
    FROM queueing_jobstream s JOIN (SELECT tenant_id, max(position) AS position FROM events GROUP BY tenant_id) l USING (tenant_id)
    WHERE s.position < l.position
    ORDER BY s.tenant_id FOR NO KEY UPDATE OF s
), recorded AS (
    UPDATE queueing_jobstream s SET position = greatest(s.position, h.position) FROM held h WHERE s.tenant_id = h.tenant_id
)
SELECT p.finished_at, p.id, d.id IS NOT NULL
FROM page p LEFT JOIN deleted d ON d.tenant_id = p.tenant_id AND d.id = p.id
ORDER BY p.finished_at, p.id;

-- name: stale_slots
-- Delete slots of jobs that do not run any more. A claim of the kind removes them too: those that it has locked are left to it.
DELETE FROM queueing_jobslot WHERE ctid = ANY(ARRAY(
    SELECT s.ctid FROM queueing_jobslot s
    WHERE NOT EXISTS (
        SELECT FROM queueing_job j
        WHERE j.tenant_id = s.tenant_id AND j.id = s.job_id AND j.attempt = s.attempt AND j.closed IS NULL AND j.leased_until >= now()
    )
    LIMIT %(limit)s FOR UPDATE OF s SKIP LOCKED
))
RETURNING job_id;
