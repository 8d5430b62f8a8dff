-- name: down
-- Endpoints of enabled processors with an open breaker, or that reported within `valid` seconds to be failing: each with the names of
-- its processors. Without payments nobody asks for a report, and the last one may be old.
SELECT e.key, e.breaker, e.failing, e.breaker_changed_at, e.polled_at, e.failures,
    array_agg(p.name ORDER BY t.slug, p.name), array_agg(t.slug ORDER BY t.slug, p.name)
FROM payments_endpoint e
JOIN payments_processor p ON p.kind || ':' || coalesce(nullif(p.url, ''), p.id::text) = e.key
JOIN registry_tenant t ON t.id = p.tenant_id
WHERE (e.breaker <> 'closed' OR (e.failing AND e.polled_at > now() - make_interval(secs => %(valid)s))) AND p.enabled AND (%(tenants)s::bigint[] IS NULL OR p.tenant_id = ANY(%(tenants)s::bigint[]))
GROUP BY e.key
ORDER BY e.breaker_changed_at LIMIT %(limit)s;

-- name: routable
-- Enabled processors, and the endpoints that they have.
SELECT count(*), count(DISTINCT kind || ':' || coalesce(nullif(url, ''), id::text)) FROM payments_processor WHERE enabled;

-- name: breakers
-- All endpoints by kind and state of their breaker.
SELECT split_part(key, ':', 1), breaker, count(*) FROM payments_endpoint GROUP BY 1, 2;
