-- name: unsettled
-- Payments that are on their way to a processor, in doubt there or waiting there. Beside the status its indexed sides, the open
-- ones in the order of their index.
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
-- Of the processors that payments may be sent to by name.
SELECT name FROM payments_processor WHERE tenant_id = %(tenant)s AND enabled;
