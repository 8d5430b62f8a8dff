-- name: unsettled
-- Payments that are processing, uncertain or require an action at a processor. By the indexes of open payments, in their order,
-- and of those that require an action.
SELECT count(*)
FROM (
    (
        SELECT tenant_id, id, attempt, status FROM payments_payment
        WHERE tenant_id = %(tenant)s AND closed IS NULL
        ORDER BY priority DESC, run_at, id
    )
    UNION ALL
    SELECT tenant_id, id, attempt, status FROM payments_payment WHERE tenant_id = %(tenant)s AND closed = 'requires_action'
) p
CROSS JOIN LATERAL (
    SELECT a.processor_id FROM payments_attempt a
    WHERE a.tenant_id = p.tenant_id AND a.payment_id = p.id AND a.number = p.attempt
    OFFSET 0
) a
WHERE p.status IN ('processing', 'uncertain', 'requires_action') AND a.processor_id = %(processor)s;

-- name: names
-- The names of enabled processors.
SELECT name FROM payments_processor WHERE tenant_id = %(tenant)s AND enabled;
