-- name: open_payments
SELECT count(*) FROM (
    (SELECT FROM payments_payment WHERE tenant_id = %(tenant)s AND closed IS NULL ORDER BY priority DESC, run_at, id)
    UNION ALL
    SELECT FROM payments_payment WHERE tenant_id = %(tenant)s AND closed = 'requires_action'
) AS standing;

-- name: open_refunds
SELECT count(*) FROM (
    SELECT FROM payments_refund WHERE tenant_id = %(tenant)s AND closed IS NULL ORDER BY priority DESC, run_at, id
) AS standing;

-- name: live_subscriptions
-- Subscriptions that Stripe still charges for: end them before the tenant is erased.
SELECT count(*) FROM payments_subscription WHERE tenant_id = %(tenant)s AND stripe_subscription > '' AND status <> 'canceled';

-- name: open_events
-- Events that are not handled yet. They may report money, and erasure would skip them. A worker handles them within minutes, or
-- makes them dead letters.
SELECT count(*) FROM (
    SELECT FROM payments_inboundevent WHERE tenant_id = %(tenant)s AND closed IS NULL ORDER BY priority DESC, run_at, id
) AS standing;

-- name: erasable
-- Payments that may be erased: settled, with no open refund and no event that is still to be handled.
SELECT p.id, p.correlation_id, p.status IN ('succeeded', 'failed', 'canceled') AND NOT EXISTS (
    SELECT FROM payments_refund r WHERE r.payment_id = p.id AND r.tenant_id + 0 = p.tenant_id AND coalesce(r.closed, '') = ''
) AND coalesce((
    SELECT false FROM payments_inboundevent e
    WHERE e.tenant_id = p.tenant_id AND e.closed IS NULL AND (e.payment_id = p.id OR EXISTS (
        SELECT FROM unnest(known.names) AS n (name) WHERE position(convert_to('"' || n.name || '"', 'UTF8') IN e.body) > 0
    ))
    ORDER BY e.priority DESC, e.run_at, e.id LIMIT 1
), true)
FROM payments_payment p
CROSS JOIN LATERAL (
    SELECT array_prepend(p.correlation_id::text, array_agg(a.reference::text) FILTER (WHERE a.reference > '')) AS names
    FROM payments_attempt a WHERE a.tenant_id = p.tenant_id AND a.payment_id = p.id
) known
WHERE p.correlation_id = ANY(%(correlations)s::uuid[]) AND p.tenant_id + 0 = %(tenant)s;

-- name: events_of
-- A condition on an event `t`: it belongs to one of the payments. Events without a handler have no payment id, but their body may
-- have, in quotes, an id of one, ours or the processor's. Compares bytes, because a body need not be JSON that PostgreSQL accepts.
(t.payment_id = ANY(%(payments)s) OR (t.payment_id IS NULL AND EXISTS (
    SELECT FROM unnest((
        SELECT array_agg(n.name) FROM (
            SELECT a.reference FROM payments_attempt a WHERE a.tenant_id = %(tenant)s AND a.payment_id = ANY(%(payments)s)
            UNION
            SELECT r.reference FROM payments_refund r WHERE r.tenant_id = %(tenant)s AND r.payment_id = ANY(%(payments)s)
            UNION
            SELECT d.reference FROM payments_dispute d WHERE d.tenant_id = %(tenant)s AND d.payment_id = ANY(%(payments)s)
            UNION
            SELECT c::text FROM unnest(%(correlations)s::uuid[]) AS c
        ) AS n (name) WHERE n.name <> ''
    )) AS known (name)
    WHERE position(convert_to('"' || known.name || '"', 'UTF8') IN t.body) > 0
)));

-- name: own_processors
-- A condition on a row `t` of the sandbox processor: it belongs to one of the tenant's processors.
t.processor_id IN (SELECT id FROM payments_processor WHERE tenant_id = %(tenant)s);

-- name: attempts_of
-- A condition on a delivery attempt `t`: its delivery is closed and is about one of the payments.
t.delivery_id IN (SELECT d.id FROM queueing_webhookdelivery d
    WHERE d.tenant_id = %(tenant)s AND d.closed IS NOT NULL AND d.subject = ANY(%(correlations)s));
