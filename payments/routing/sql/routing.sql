-- name: accounts
SELECT p.id, p.tenant_id, p.name, p.kind, rtrim(p.url, '/'), (p.fee * 1000000)::bigint, p.options, p.enabled,
    p.kind || ':' || coalesce(nullif(p.url, ''), p.id::text), t.mode, p.secrets,
    coalesce((l.fee_share * 1000000)::bigint, 0), t.patience, p.public_only
FROM payments_processor p JOIN registry_tenant t ON t.id = p.tenant_id
LEFT JOIN payments_subscription s ON s.tenant_id = p.tenant_id LEFT JOIN payments_plan l ON l.id = s.plan_id
WHERE p.tenant_id = ANY(%(tenants)s::bigint[])
ORDER BY p.tenant_id, p.fee, p.id;

-- name: shared
-- Those of these endpoints at which several tenants have accounts.
SELECT p.kind || ':' || p.url FROM payments_processor p
WHERE p.url <> '' AND p.kind || ':' || p.url = ANY(%(keys)s::text[])
GROUP BY 1 HAVING count(DISTINCT p.tenant_id) > 1;

-- name: endpoints
SELECT key, failing, min_response_ms, breaker, extract(epoch FROM now() - polled_at)::float8
FROM payments_endpoint WHERE key = ANY(%(keys)s::text[]);

-- name: elect
-- One caller per endpoint and interval: the one that advances next_poll_at. Returns the endpoints that this caller polls, and in how many
-- seconds the others are due. A new endpoint is in neither: it is due at once.
WITH known AS (
    INSERT INTO payments_endpoint (key, failing, min_response_ms, trend_ms, next_poll_at, breaker, failures, breaker_changed_at)
    SELECT key, false, 0, 0, now(), 'closed', 0, now() FROM unnest(%(keys)s::text[]) AS key
    ON CONFLICT (key) DO NOTHING
), elected AS (
    UPDATE payments_endpoint SET next_poll_at = now() + make_interval(secs => %(every)s)
    WHERE key IN (
        SELECT key FROM payments_endpoint WHERE key = ANY(%(keys)s::text[]) AND next_poll_at <= now()
        ORDER BY key FOR UPDATE SKIP LOCKED
    )
    RETURNING key
)
SELECT key, NULL::float8 FROM elected
UNION ALL
SELECT key, extract(epoch FROM next_poll_at - now())::float8
FROM payments_endpoint WHERE key = ANY(%(keys)s::text[]) AND next_poll_at > now();

-- name: write_health
-- The next call is due one interval after this answer: the time between election and call is unknown here.
UPDATE payments_endpoint SET failing = %(failing)s, min_response_ms = %(minimum)s, polled_at = now(),
    next_poll_at = now() + make_interval(secs => %(every)s)
WHERE key = %(key)s;

-- name: share
-- A breaker is written only by the worker that saw it change, a trend only by one that measured it (else NULL). Unchanged rows are
-- not written.
WITH seen AS (
    SELECT * FROM unnest(%(keys)s::text[], %(breakers)s::text[], %(failures)s::bigint[], %(trends)s::float8[])
        AS t (key, breaker, failures, trend_ms)
), written AS (
    INSERT INTO payments_endpoint AS e
        (key, failing, min_response_ms, trend_ms, next_poll_at, breaker, failures, breaker_changed_at)
    SELECT key, false, 0, coalesce(trend_ms, 0), now(), coalesce(nullif(breaker, ''), 'closed'), failures, now() FROM seen ORDER BY key
    ON CONFLICT (key) DO UPDATE SET
        trend_ms = coalesce((SELECT s.trend_ms FROM seen s WHERE s.key = e.key), e.trend_ms),
        failures = excluded.failures,
        breaker = CASE WHEN (SELECT s.breaker FROM seen s WHERE s.key = e.key) = '' THEN e.breaker ELSE excluded.breaker END,
        breaker_changed_at = CASE WHEN (SELECT s.breaker FROM seen s WHERE s.key = e.key) IN ('', e.breaker)
            THEN e.breaker_changed_at ELSE now() END
    WHERE abs(e.trend_ms - (SELECT s.trend_ms FROM seen s WHERE s.key = e.key)) > 0.5 OR e.failures <> excluded.failures
       OR (SELECT s.breaker FROM seen s WHERE s.key = e.key) NOT IN ('', e.breaker)
    RETURNING e.key, e.failing, e.min_response_ms, e.breaker, extract(epoch FROM now() - e.polled_at)::float8 AS ago
)
SELECT * FROM written
UNION ALL
SELECT e.key, e.failing, e.min_response_ms, e.breaker, extract(epoch FROM now() - e.polled_at)::float8
FROM payments_endpoint e
WHERE e.key = ANY(%(keys)s::text[]) AND e.key NOT IN (SELECT key FROM written);
