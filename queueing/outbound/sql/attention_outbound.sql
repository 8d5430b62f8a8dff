-- name: failed
-- Deliveries that failed for good, how many endpoints they were for, and the tenant of the oldest. By the partial index of dead deliveries.
SELECT count(*), min(changed_at), count(DISTINCT endpoint_id),
    (SELECT slug FROM registry_tenant WHERE id = (array_agg(d.tenant_id ORDER BY d.changed_at))[1])
FROM (
    SELECT changed_at, endpoint_id, tenant_id FROM queueing_webhookdelivery
    WHERE closed = 'dead' AND (%(tenants)s::bigint[] IS NULL OR tenant_id = ANY(%(tenants)s::bigint[]))
    LIMIT %(limit)s
) d;

-- name: disabled
-- Endpoints that were switched off for a reason, such as failing for days. Those that their tenant switched off have none.
SELECT count(*), min(changed_at), min(url)
FROM (
    SELECT changed_at, url FROM queueing_webhookendpoint
    WHERE NOT enabled AND disabled_reason > '' AND deleted_at IS NULL AND (%(tenants)s::bigint[] IS NULL OR tenant_id = ANY(%(tenants)s::bigint[]))
    LIMIT %(limit)s
) e;

-- name: failing
-- Endpoints that are switched on and have accepted nothing since before `patience` seconds ago. By the partial index of endpoints
-- that are not deleted and no receivers of callbacks.
SELECT count(*), min(failing_since), min(url), min(slug)
FROM (
    SELECT e.failing_since, e.url, t.slug
    FROM queueing_webhookendpoint e JOIN registry_tenant t ON t.id = e.tenant_id
    WHERE e.enabled AND e.failing_since < now() - make_interval(secs => %(patience)s) AND e.deleted_at IS NULL AND NOT e.callback
        AND (%(tenants)s::bigint[] IS NULL OR e.tenant_id = ANY(%(tenants)s::bigint[]))
    LIMIT %(limit)s
) e;
