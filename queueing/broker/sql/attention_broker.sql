-- name: dead
-- Open dead messages of queues.
SELECT count(*), min(failed_at), count(DISTINCT queue_id)
FROM (
    SELECT failed_at, queue_id FROM queueing_deadmessage
    WHERE ended_at IS NULL AND (%(tenants)s::bigint[] IS NULL OR tenant_id = ANY(%(tenants)s::bigint[]))
    LIMIT %(limit)s
) m;
