-- name: clock
SELECT now();

-- name: save
-- Create a schedule or replace it. A due time that has come and is not handled yet, such as after an outage, stays, unless the
-- times themselves change. A paused schedule stays paused. Nothing is stored, and nothing returned, if the tenant has `most` others.
INSERT INTO queueing_jobschedule AS s (tenant_id, name, cron, timezone, overlap, catch_up, next_at, kind, input, sealed, priority,
    max_attempts, timeout, result_ttl, callback_url)
SELECT %(tenant)s, %(name)s, %(cron)s, %(timezone)s, %(overlap)s, %(catch_up)s, %(next_at)s::timestamptz, %(kind)s, %(input)s,
    %(sealed)s::bytea, %(priority)s, %(max_attempts)s, %(timeout)s, %(result_ttl)s, %(callback_url)s
WHERE (SELECT count(*) FROM queueing_jobschedule o WHERE o.tenant_id = %(tenant)s AND o.name <> %(name)s) < %(most)s
ON CONFLICT (tenant_id, name) DO UPDATE
SET cron = excluded.cron, timezone = excluded.timezone, overlap = excluded.overlap, catch_up = excluded.catch_up,
    next_at = CASE WHEN s.paused THEN NULL
        WHEN (s.cron, s.timezone) = (excluded.cron, excluded.timezone) THEN coalesce(s.next_at, excluded.next_at)
        ELSE excluded.next_at END,
    kind = excluded.kind, input = excluded.input, sealed = excluded.sealed, priority = excluded.priority,
    max_attempts = excluded.max_attempts, timeout = excluded.timeout, result_ttl = excluded.result_ttl,
    callback_url = excluded.callback_url, changed_at = now()
RETURNING xmax = 0;

-- name: due
-- Schedules that are due, those first that have waited longest. One that submits the jobs of all missed due times one after the
-- other is left out while its job is open: it would hide others.
SELECT s.tenant_id, s.id FROM queueing_jobschedule s
WHERE s.next_at <= now() AND NOT (
    s.overlap = 'skip' AND s.catch_up = 'all' AND s.next_at <= now() - make_interval(secs => %(missed_after)s) AND EXISTS (
        SELECT FROM queueing_job j WHERE j.schedule_id = s.id AND j.tenant_id + 0 = s.tenant_id AND j.closed IS NULL
    )
)
ORDER BY s.next_at LIMIT %(limit)s;

-- name: lock
-- Lock those of these schedules that are due still; another process handles the others.
SELECT s.tenant_id, s.id, s.name, s.cron, s.timezone, s.overlap, s.catch_up, s.next_at, s.kind, s.input, s.sealed, s.priority,
    s.max_attempts, s.timeout, s.result_ttl, s.callback_url, now(), t.status = 'active'
FROM unnest(%(tenants)s::bigint[], %(ids)s::bigint[]) AS d (tenant_id, id)
JOIN queueing_jobschedule s ON s.tenant_id = d.tenant_id AND s.id = d.id
JOIN registry_tenant t ON t.id = s.tenant_id
WHERE s.next_at <= now()
ORDER BY s.tenant_id, s.id
FOR UPDATE OF s SKIP LOCKED;

-- name: with_open_jobs
-- Those of these schedules that have an open job. Read after their rows are locked, so that a job is seen that another process
-- has just submitted.
SELECT d.id FROM unnest(%(tenants)s::bigint[], %(ids)s::bigint[]) AS d (tenant_id, id)
WHERE EXISTS (SELECT FROM queueing_job j WHERE j.schedule_id = d.id AND j.tenant_id + 0 = d.tenant_id AND j.closed IS NULL);

-- name: move
-- Write the next due times, and the latest jobs.
UPDATE queueing_jobschedule s SET next_at = t.next_at, last_job = coalesce(t.job, s.last_job)
FROM unnest(%(tenants)s::bigint[], %(ids)s::bigint[], %(next_at)s::timestamptz[], %(jobs)s::uuid[]) AS t (tenant_id, id, next_at, job)
WHERE s.tenant_id = t.tenant_id AND s.id = t.id;
