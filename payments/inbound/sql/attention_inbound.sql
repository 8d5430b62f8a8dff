-- name: dead
-- Events that could not be handled. By the partial index of dead events.
SELECT count(*), min(received_at), count(DISTINCT processor_id)
FROM (
    SELECT received_at, processor_id FROM payments_inboundevent
    WHERE closed = 'dead' AND (%(tenants)s::bigint[] IS NULL OR tenant_id = ANY(%(tenants)s::bigint[]))
    LIMIT %(limit)s
) e;
