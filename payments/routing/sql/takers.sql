-- name: takers
-- Tenants none of whose processors takes a payment that names none: the names of all, of the enabled ones, and of those among these
-- that routing may choose; and the payments that wait, with the time of the oldest.
SELECT f.names, f.enabled, f.routed, w.waiting, w.since
FROM unnest(%(tenants)s::bigint[]) AS t (id)
CROSS JOIN LATERAL (
    SELECT coalesce(array_agg(p.name ORDER BY p.name), '{}') AS names,
        coalesce(array_agg(p.name ORDER BY p.name) FILTER (WHERE p.enabled), '{}') AS enabled,
        coalesce(array_agg(p.name ORDER BY p.name) FILTER (WHERE p.enabled AND p.named IS NOT true), '{}') AS routed,
        count(*) FILTER (WHERE p.enabled AND p.named IS NOT true AND p.works) AS takers
    FROM (
        SELECT p.name, p.enabled, p.options -> 'onlyByName' = 'true'::jsonb AS named,
            coalesce(e.breaker, 'closed') = 'closed' AND NOT coalesce(e.failing, false) AS works
        FROM payments_processor p
        LEFT JOIN payments_endpoint e ON e.key = p.kind || ':' || coalesce(nullif(p.url, ''), p.id::text)
        WHERE p.tenant_id = t.id
    ) p
) f
CROSS JOIN LATERAL (
    SELECT count(*) AS waiting, min(created_at) AS since FROM (
        SELECT created_at FROM payments_payment
        WHERE tenant_id = t.id AND closed IS NULL AND status = 'queued' AND wanted_processor = '' AND coalesce(scheduled_for, now()) <= now()
        ORDER BY priority DESC, run_at, id LIMIT %(limit)s
    ) q
) w
WHERE f.takers = 0;

-- name: waiting
-- Tenants with waiting payments that no processor takes: the slug, the payments, the time of the oldest. For all tenants: payments
-- are looked for only of those without a processor that works.
SELECT t.slug, w.waiting, w.since
FROM registry_tenant t
CROSS JOIN LATERAL (
    SELECT count(*) AS waiting, min(created_at) AS since FROM (
        SELECT created_at FROM payments_payment
        WHERE tenant_id = t.id AND closed IS NULL AND status = 'queued' AND wanted_processor = '' AND coalesce(scheduled_for, now()) <= now()
        ORDER BY priority DESC, run_at, id LIMIT %(limit)s
    ) q
) w
WHERE w.waiting > 0 AND NOT EXISTS (
    SELECT FROM payments_processor p
    LEFT JOIN payments_endpoint e ON e.key = p.kind || ':' || coalesce(nullif(p.url, ''), p.id::text)
    WHERE p.tenant_id = t.id AND p.enabled AND (p.options -> 'onlyByName' = 'true'::jsonb) IS NOT true
        AND coalesce(e.breaker, 'closed') = 'closed' AND NOT coalesce(e.failing, false)
)
ORDER BY w.since LIMIT %(tenants)s;
