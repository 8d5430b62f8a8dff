-- name: since
-- A tenant's events after a number. Numbers follow commit order (`payments_number` locks the stream while events are numbered), so that no later
-- commit has a lower number. Events of refunds and disputes (`kind`) come with what is refunded, and whether a dispute is open or
-- lost; the disputes of other events are not read.
SELECT e.tenant_id, e.position, p.correlation_id, e.status, p.amount, p.currency, r.name, e.attempt, e.at, e.sequence,
    CASE WHEN e.kind <> '' THEN p.refunded END, d.disputed, d.lost
FROM (
    SELECT * FROM payments_paymentevent
    WHERE tenant_id = %(tenant)s AND position > %(after)s ORDER BY position LIMIT %(limit)s
) e
CROSS JOIN LATERAL (  -- one look-up per event; OFFSET 0 keeps the planner from reading all payments of the tenant
    SELECT * FROM payments_payment p WHERE p.tenant_id = e.tenant_id AND p.id = e.payment_id OFFSET 0
) p
LEFT JOIN payments_processor r ON r.id = e.processor_id
LEFT JOIN LATERAL (
    SELECT bool_or(closed_at IS NULL) AS disputed, bool_or(closed_at IS NOT NULL AND withdrawn > 0) AS lost
    FROM payments_dispute WHERE payment_id = p.id AND tenant_id + 0 = p.tenant_id AND e.kind <> ''
) d ON true
ORDER BY e.position;

-- name: of_payment
SELECT e.tenant_id, e.position, p.correlation_id, e.status, p.amount, p.currency, r.name, e.attempt, e.at, e.sequence,
    CASE WHEN e.kind <> '' THEN p.refunded END, d.disputed, d.lost
FROM payments_payment p
JOIN payments_paymentevent e ON e.payment_id = p.id AND e.tenant_id + 0 = p.tenant_id
LEFT JOIN payments_processor r ON r.id = e.processor_id
LEFT JOIN LATERAL (
    SELECT bool_or(closed_at IS NULL) AS disputed, bool_or(closed_at IS NOT NULL AND withdrawn > 0) AS lost
    FROM payments_dispute WHERE payment_id = p.id AND tenant_id + 0 = p.tenant_id AND e.kind <> ''
) d ON true
WHERE p.correlation_id = %(correlation)s AND p.tenant_id + 0 = %(tenant)s AND e.sequence > %(after)s
ORDER BY e.sequence;

-- name: positions
SELECT tenant_id, position FROM payments_latest WHERE tenant_id = ANY(%(tenants)s);
