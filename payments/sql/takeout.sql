-- name: close
-- Nothing more is told to the tenant's endpoints.
UPDATE payments_webhookendpoint SET enabled = false, deleted_at = coalesce(deleted_at, now()), changed_at = now()
WHERE tenant_id = %(tenant)s AND deleted_at IS NULL;

-- name: open_payments
SELECT count(*) FROM (
    SELECT FROM payments_payment WHERE tenant_id = %(tenant)s AND closed IS NULL
    UNION ALL
    SELECT FROM payments_payment WHERE tenant_id = %(tenant)s AND closed = 'requires_action'
) AS standing;

-- name: open_refunds
SELECT count(*) FROM payments_refund WHERE tenant_id = %(tenant)s AND closed IS NULL;

-- name: live_subscriptions
-- Stripe would go on asking for money for a tenant that is no more.
SELECT count(*) FROM payments_subscription WHERE tenant_id = %(tenant)s AND stripe_subscription > '' AND status <> 'canceled';

-- name: found
SELECT p.id, p.correlation_id, p.status IN ('succeeded', 'failed', 'canceled') AND NOT EXISTS (
    SELECT FROM payments_refund r WHERE r.tenant_id = p.tenant_id AND r.payment_id = p.id AND r.closed IS NULL)
FROM payments_payment p
WHERE p.tenant_id = %(tenant)s AND p.correlation_id = ANY(%(correlations)s::uuid[]);
