-- name: dead
-- Open dead messages of queues, and the tenant of the oldest.
SELECT count(*), min(failed_at), count(DISTINCT queue_id),
    (SELECT slug FROM registry_tenant WHERE id = (array_agg(m.tenant_id ORDER BY m.failed_at))[1])
FROM (
    SELECT failed_at, queue_id, tenant_id FROM queueing_deadmessage
    WHERE ended_at IS NULL AND (%(tenants)s::bigint[] IS NULL OR tenant_id = ANY(%(tenants)s::bigint[]))
    LIMIT %(limit)s
) m;
