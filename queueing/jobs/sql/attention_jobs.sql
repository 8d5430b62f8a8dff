-- name: failed
-- Jobs that failed for good, and the tenant of the oldest. By the partial index of failed jobs.
SELECT count(*), min(coalesce(finished_at, changed_at)), count(DISTINCT kind),
    (SELECT slug FROM registry_tenant WHERE id = (array_agg(j.tenant_id ORDER BY coalesce(j.finished_at, j.changed_at)))[1])
FROM (
    SELECT finished_at, changed_at, kind, tenant_id FROM queueing_job
    WHERE closed = 'failed' AND (%(tenants)s::bigint[] IS NULL OR tenant_id = ANY(%(tenants)s::bigint[]))
    LIMIT %(limit)s
) j;
