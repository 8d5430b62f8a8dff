-- name: payment
-- One payment by its correlation id, with the processor that booked it or is being tried.
SELECT p.correlation_id, p.status, p.amount, p.currency, r.name, p.attempt, p.changed_at, p.sequence,
    p.id, p.created_at, p.description, p.method, p.metadata, p.fee, p.refunded, p.code, p.scheduled_for, p.priority, p.return_url
FROM payments_payment p
LEFT JOIN payments_attempt a ON a.tenant_id = p.tenant_id AND a.payment_id = p.id AND a.number = p.attempt
LEFT JOIN payments_processor r ON r.id = coalesce(p.processor_id, a.processor_id)
WHERE p.correlation_id = %(correlation)s AND p.tenant_id + 0 = %(tenant)s;

-- name: attempts
SELECT a.number, r.name, a.reason, a.requested_at, a.outcome, a.code, a.latency_ms, a.started_at
FROM payments_attempt a LEFT JOIN payments_processor r ON r.id = a.processor_id
WHERE a.tenant_id = %(tenant)s AND a.payment_id = %(payment)s
ORDER BY a.number;

-- name: timeline
SELECT e.sequence, e.at, e.status, e.detail, e.kind, e.attempt
FROM payments_paymentevent e
WHERE e.payment_id = %(payment)s AND e.tenant_id = %(tenant)s
ORDER BY e.sequence;
