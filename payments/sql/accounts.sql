-- name: unsettled
-- Payments that are on their way to a processor, in doubt there or waiting there. Beside the status its indexed sides.
SELECT count(*) FROM payments_payment p
JOIN payments_attempt a ON a.tenant_id = p.tenant_id AND a.payment_id = p.id AND a.number = p.attempt
WHERE p.tenant_id = %(tenant)s AND (p.closed IS NULL OR p.closed = 'requires_action')
  AND p.status IN ('processing', 'uncertain', 'requires_action') AND a.processor_id = %(processor)s;

-- name: names
-- Of the processors that payments may be sent to by name.
SELECT name FROM payments_processor WHERE tenant_id = %(tenant)s AND enabled;
