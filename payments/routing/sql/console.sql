-- name: processors
-- A tenant's processors in the order of routing, with the state of their endpoints, and their share of the bookings of the last day.
WITH share AS (
    SELECT processor_id, sum(payments) AS payments
    FROM payments_rollup
    WHERE tenant_id = %(tenant)s AND width = 3600 AND starts_at > now() - interval '1 day'
    GROUP BY processor_id
)
SELECT p.id, coalesce(e.breaker, 'closed'), e.breaker_changed_at, coalesce(e.failing, false),
    coalesce(e.min_response_ms, 0), coalesce(e.trend_ms, 0), e.polled_at,
    coalesce(s.payments / nullif(sum(s.payments) OVER (), 0), 0)::float8
FROM payments_processor p
LEFT JOIN payments_endpoint e ON e.key = p.kind || ':' || coalesce(nullif(p.url, ''), p.id::text)
LEFT JOIN share s ON s.processor_id = p.id
WHERE p.tenant_id = %(tenant)s
ORDER BY p.fee, p.name;
