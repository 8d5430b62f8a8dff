-- name: rules
-- The rules of a tenant: its processors with the fields that routing reads.
SELECT p.id, p.name, p.kind, p.url, p.fee::text, p.enabled, p.options, t.mode, t.patience
FROM payments_processor p JOIN registry_tenant t ON t.id = p.tenant_id
WHERE p.tenant_id = %(tenant)s
ORDER BY p.fee, p.id;

-- name: sends
-- The sends of the latest payments, one per decision: an attempt with a new requestedAt. Look-ups and repeats have the old one.
WITH latest AS MATERIALIZED (
    SELECT tenant_id, id, correlation_id, amount, currency, wanted_processor, processor_id AS booked_by, fee
    FROM payments_payment
    WHERE tenant_id = %(tenant)s AND created_at > '0001-01-01Z' AND created_at <= now()
    ORDER BY created_at DESC, id DESC
    LIMIT %(last)s
), sends AS (
    SELECT DISTINCT ON (a.payment_id, a.requested_at)
        l.id, l.correlation_id, l.amount, l.currency, l.wanted_processor, a.processor_id,
        extract(epoch FROM a.started_at)::float8 AS started, a.outcome, a.code, a.latency_ms, l.booked_by, l.fee
    FROM latest l
    CROSS JOIN LATERAL (SELECT * FROM payments_attempt a WHERE a.tenant_id = l.tenant_id AND a.payment_id = l.id OFFSET 0) a
    ORDER BY a.payment_id, a.requested_at, a.number
)
SELECT * FROM sends ORDER BY started, id;
