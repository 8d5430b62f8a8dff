-- name: since
-- A tenant's events after a number. Numbers follow commit order (Stream is locked while events are numbered), so that no later
-- commit has a lower number.
SELECT e.tenant_id, e.position, p.correlation_id, e.status, p.amount, p.currency, r.name, e.attempt, e.at, e.sequence
FROM (
    SELECT * FROM payments_paymentevent
    WHERE tenant_id = %(tenant)s AND position > %(after)s ORDER BY position LIMIT %(limit)s
) e
CROSS JOIN LATERAL (  -- one look-up per event; OFFSET 0 keeps the planner from reading all payments of the tenant
    SELECT * FROM payments_payment p WHERE p.tenant_id = e.tenant_id AND p.id = e.payment_id OFFSET 0
) p
LEFT JOIN payments_processor r ON r.id = e.processor_id
ORDER BY e.position;

-- name: of_payment
SELECT e.tenant_id, e.position, p.correlation_id, e.status, p.amount, p.currency, r.name, e.attempt, e.at, e.sequence
FROM payments_payment p
JOIN payments_paymentevent e ON e.payment_id = p.id AND e.tenant_id + 0 = p.tenant_id
LEFT JOIN payments_processor r ON r.id = e.processor_id
WHERE p.correlation_id = %(correlation)s AND p.tenant_id + 0 = %(tenant)s AND e.sequence > %(after)s
ORDER BY e.sequence;

-- name: positions
SELECT tenant_id, position FROM payments_stream WHERE tenant_id = ANY(%(tenants)s);
