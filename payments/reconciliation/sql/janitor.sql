-- name: payments
-- A page of a tenant's payments that no worker claims: those that require an action, and those in doubt that workers gave up.
-- Each by its partial index; the attempt has the processor.
SELECT p.tenant_id, p.id, p.correlation_id, p.amount, p.currency, p.status, a.processor_id, a.requested_at, a.action,
    (SELECT max(r.reference) FROM payments_attempt r WHERE r.tenant_id = p.tenant_id AND r.payment_id = p.id
        AND r.requested_at = a.requested_at),
    extract(epoch FROM now() - p.in_doubt_since)::float8
FROM registry_tenant t CROSS JOIN LATERAL (
    SELECT * FROM payments_payment w
    WHERE w.tenant_id = t.id AND w.closed = 'requires_action' AND w.id > %(after)s
      AND w.changed_at <= now() - make_interval(secs => %(youngest)s) AND w.changed_at > now() - make_interval(secs => %(oldest)s)
    UNION ALL
    SELECT * FROM payments_payment s
    WHERE s.tenant_id = t.id AND s.closed IS NULL AND s.in_doubt_since IS NOT NULL AND s.run_at = '9999-12-31Z' AND s.id > %(after)s
      AND s.changed_at <= now() - make_interval(secs => %(youngest)s) AND s.changed_at > now() - make_interval(secs => %(oldest)s)
    ORDER BY id LIMIT %(limit)s
) p
CROSS JOIN LATERAL (
    SELECT * FROM payments_attempt a WHERE a.tenant_id = p.tenant_id AND a.payment_id = p.id AND a.number = p.attempt OFFSET 0
) a
WHERE t.id = %(tenant)s
ORDER BY p.id;

-- name: refunds
-- A page of refunds in doubt that workers gave up.
SELECT r.tenant_id, r.id, r.public_id, y.correlation_id, r.amount, r.currency, r.reason, r.processor_id, r.requested_at, r.reference,
    (SELECT max(a.reference) FROM payments_attempt a WHERE a.tenant_id = y.tenant_id AND a.payment_id = y.id
        AND a.requested_at = y.requested_at)
FROM payments_refund r CROSS JOIN LATERAL (
    SELECT * FROM payments_payment y WHERE y.tenant_id = r.tenant_id AND y.id = r.payment_id OFFSET 0
) y
WHERE r.tenant_id = %(tenant)s AND r.closed IS NULL AND r.stopped_at IS NOT NULL AND r.status = 'uncertain'
  AND r.id > %(after)s AND r.stopped_at <= now() - make_interval(secs => %(youngest)s)
  AND r.stopped_at > now() - make_interval(secs => %(oldest)s)
ORDER BY r.id LIMIT %(limit)s;
