-- name: accept
-- Insert a batch of payments with one statement and one commit. Existing correlation ids are skipped and not returned. `at` is
-- the time of the request, which a spilled payment keeps, unless that machine's clock is ahead of the server's; it is due by the
-- server's clock, as claims compare `run_at` with that. Events are
-- numbered last, so that the tenants' streams are locked for a short time; in order of tenant, against deadlocks.
-- FULL JOIN: see `begin` in settle.sql.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        %(tenant)b::bigint[], %(correlation)b::uuid[], %(fingerprint)b::bytea[], %(amount)b::bigint[],
        %(currency)b::text[], %(description)b::text[], %(metadata)b::text[], %(wanted)b::text[],
        %(run_at)b::timestamptz[], %(priority)b::bigint[], %(at)b::timestamptz[], %(method)b::text[], %(return_url)b::text[]
    ) AS t (tenant_id, correlation_id, fingerprint, amount, currency, description, metadata, wanted, run_at, priority, at, method,
        return_url)
), accepted AS (
    INSERT INTO payments_payment (tenant_id, correlation_id, fingerprint, amount, currency, description, metadata,
        wanted_processor, method, return_url, scheduled_for, run_at, priority, status, sequence, code, refunded, attempt, created_at, changed_at)
    SELECT tenant_id, correlation_id, fingerprint, amount, currency, description, metadata::jsonb,
        wanted, method::jsonb, return_url, run_at, greatest(run_at, now()), priority, 'queued', 1, '', 0, 0, least(at, now()), least(at, now())
    FROM input
    ON CONFLICT (tenant_id, correlation_id) DO NOTHING
    RETURNING tenant_id, id, correlation_id, created_at
), numbered AS MATERIALIZED (
    SELECT tenant_id, payments_number(tenant_id, events) AS position
    FROM (SELECT tenant_id, count(*) AS events FROM accepted GROUP BY tenant_id ORDER BY tenant_id OFFSET 0) t
), events AS (
    INSERT INTO payments_paymentevent (tenant_id, position, payment_id, sequence, status, attempt, at, detail)
    SELECT a.tenant_id, n.position - row_number() OVER (PARTITION BY a.tenant_id ORDER BY a.id DESC) + 1,
        a.id, 1, 'queued', 0, a.created_at, ''
    FROM accepted a FULL JOIN numbered n ON n.tenant_id = a.tenant_id
    RETURNING tenant_id, payment_id, position
)
SELECT a.tenant_id, a.correlation_id, a.created_at, e.position
FROM accepted a FULL JOIN events e ON e.tenant_id = a.tenant_id AND e.payment_id = a.id;

-- name: existing
-- The payments that exist under these ids; a replay has the same fingerprint.
SELECT p.tenant_id, p.correlation_id, p.fingerprint, p.created_at, p.currency
FROM unnest(%(tenant)b::bigint[], %(correlation)b::uuid[]) AS t (tenant_id, correlation_id)
JOIN payments_payment p ON p.correlation_id = t.correlation_id AND p.tenant_id + 0 = t.tenant_id
WHERE t.tenant_id BETWEEN 1 AND 9223372036854775807;
