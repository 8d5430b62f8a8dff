-- name: dead
-- Events that could not be handled, and the tenant of the oldest. By the partial index of dead events.
SELECT count(*), min(received_at), count(DISTINCT processor_id),
    (SELECT slug FROM registry_tenant WHERE id = (array_agg(e.tenant_id ORDER BY e.received_at))[1])
FROM (
    SELECT received_at, processor_id, tenant_id FROM payments_inboundevent
    WHERE closed = 'dead' AND (%(tenants)s::bigint[] IS NULL OR tenant_id = ANY(%(tenants)s::bigint[]))
    LIMIT %(limit)s
) e;
