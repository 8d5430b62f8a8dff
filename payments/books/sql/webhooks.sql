-- name: unread
-- Endpoints that have not read all of their tenant's events, those at the same number together. Without new events it reads a
-- few pages that are always in memory.
SELECT e.tenant_id, r.position, s.position, array_agg(e.id ORDER BY e.id)
FROM queueing_webhookendpoint e
CROSS JOIN LATERAL (SELECT coalesce((e.positions ->> 'payments')::bigint, 0) AS position) r
JOIN payments_latest s ON s.tenant_id = e.tenant_id AND s.position > r.position
WHERE e.enabled AND e.deleted_at IS NULL AND NOT e.callback
GROUP BY e.tenant_id, r.position, s.position
ORDER BY random()
LIMIT %(limit)s;

-- name: events
-- A range of a tenant's events, with the data of webhook bodies.
SELECT e.position, e.kind, p.correlation_id, e.status, p.amount, p.currency, r.name, e.attempt, e.at, e.sequence, e.detail,
    f.public_id, f.amount, f.reason, d.reference, d.amount, d.reason
FROM payments_paymentevent e
CROSS JOIN LATERAL (  -- OFFSET 0: the planner must look up each payment by its key, and not read all of the tenant's
    SELECT * FROM payments_payment p WHERE p.tenant_id = e.tenant_id AND p.id = e.payment_id OFFSET 0
) p
LEFT JOIN payments_processor r ON r.id = e.processor_id
LEFT JOIN LATERAL (
    SELECT * FROM payments_refund f WHERE f.tenant_id = e.tenant_id AND f.id = e.subject_id AND e.kind LIKE 'refund.%%' OFFSET 0
) f ON true
LEFT JOIN LATERAL (
    SELECT * FROM payments_dispute d WHERE d.tenant_id = e.tenant_id AND d.id = e.subject_id AND e.kind LIKE 'dispute.%%' OFFSET 0
) d ON true
WHERE e.tenant_id = %(tenant)s AND e.position > %(after)s AND e.position <= %(upto)s
ORDER BY e.position;
