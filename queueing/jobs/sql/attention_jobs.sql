-- name: failed
-- Jobs that failed for good. By the partial index of failed jobs.
SELECT count(*), min(coalesce(finished_at, changed_at)), count(DISTINCT kind)
FROM (
    SELECT finished_at, changed_at, kind FROM queueing_job
    WHERE closed = 'failed' AND (%(tenants)s::bigint[] IS NULL OR tenant_id = ANY(%(tenants)s::bigint[]))
    LIMIT %(limit)s
) j;
