-- name: columns
-- Of a claimed row `p`.
p.tenant_id, p.id, p.processor_id, p.event_id, p.type, p.object_id, p.account, p.livemode, p.created, p.received_at,
    extract(epoch FROM now() - p.received_at)::float8, p.body, p.attempt + 1, p.attempt + 1 - p.tries_from;

-- name: account
-- The account of a webhook's address, also of a closed tenant: its money may still move.
SELECT p.tenant_id, p.id, p.secrets
FROM payments_processor p JOIN registry_tenant t ON t.id = p.tenant_id
WHERE t.slug = %(tenant)s AND p.name = %(name)s AND p.kind = 'stripe';

-- name: receive
-- Insert a batch of events with one statement and one commit. In the order of the unique key, so that two batches with the same
-- events do not deadlock. Existing events are skipped and not returned.
INSERT INTO payments_inboundevent (tenant_id, processor_id, event_id, type, object_id, created, account, livemode, body, headers, source)
SELECT tenant_id, processor_id, event_id, type, object_id, to_timestamp(created), account, livemode, body, headers::jsonb, source
FROM unnest(
    %(tenant)b::bigint[], %(processor)b::bigint[], %(event)b::text[], %(type)b::text[], %(object)b::text[],
    %(created)b::bigint[], %(account)b::text[], %(livemode)b::boolean[], %(body)b::bytea[], %(headers)b::text[],
    %(source)b::text[]
) AS t (tenant_id, processor_id, event_id, type, object_id, created, account, livemode, body, headers, source)
ORDER BY tenant_id, processor_id, event_id
ON CONFLICT (tenant_id, processor_id, event_id) DO NOTHING
RETURNING tenant_id, processor_id, event_id;

-- name: begin
-- Updates no indexed column, so the update stays on its page (HOT). Runs in the transaction that locked the rows.
UPDATE payments_inboundevent e
SET attempt = e.attempt + 1, lease_id = %(worker)s, leased_until = now() + make_interval(secs => %(lease)s)
FROM unnest(%(tenant)b::bigint[], %(id)b::bigint[]) AS t (tenant_id, id)
WHERE t.tenant_id BETWEEN 1 AND 9223372036854775807 AND e.tenant_id = t.tenant_id AND e.id = t.id;

-- name: finish
-- Write outcomes: done, dead, or due again. Fenced by worker and attempt.
UPDATE payments_inboundevent e
SET status = t.status, outcome = t.outcome, error = t.error, payment_id = coalesce(t.payment_id, e.payment_id),
    run_at = CASE WHEN t.status = 'received' THEN now() + make_interval(secs => t.wait) ELSE e.run_at END,
    done_at = CASE WHEN t.status = 'received' THEN NULL ELSE clock_timestamp() END, lease_id = NULL, leased_until = NULL
FROM unnest(
    %(tenant)b::bigint[], %(id)b::bigint[], %(attempt)b::bigint[], %(status)b::text[], %(outcome)b::text[],
    %(error)b::text[], %(payment_id)b::bigint[], %(wait)b::float8[]
) AS t (tenant_id, id, attempt, status, outcome, error, payment_id, wait)
WHERE t.tenant_id BETWEEN 1 AND 9223372036854775807 AND e.tenant_id = t.tenant_id AND e.id = t.id AND e.attempt = t.attempt
  AND e.lease_id = %(worker)s
  AND coalesce(e.closed, '') = ''
RETURNING e.tenant_id, e.id, extract(epoch FROM e.done_at - e.received_at)::float8;

-- name: hold
-- Lock payments in order of id, before anything is written.
SELECT id FROM payments_payment
WHERE correlation_id = ANY(%(correlations)s::uuid[]) AND tenant_id + 0 = %(tenant)s
ORDER BY id
FOR UPDATE;

-- name: give_back
-- Give back events that a stopping worker has not finished.
UPDATE payments_inboundevent e SET lease_id = NULL, leased_until = NULL
FROM unnest(%(tenant)b::bigint[], %(id)b::bigint[], %(attempt)b::bigint[]) AS t (tenant_id, id, attempt)
WHERE t.tenant_id BETWEEN 1 AND 9223372036854775807 AND e.tenant_id = t.tenant_id AND e.id = t.id AND e.attempt = t.attempt
  AND e.lease_id = %(worker)s;

-- name: replay
-- Due again, with a new count of tries. The attempt number only grows: it is the fence.
UPDATE payments_inboundevent
SET status = 'received', outcome = '', error = '', done_at = NULL, run_at = now(), tries_from = attempt
WHERE tenant_id = %(tenant)s AND id = %(id)s AND status <> 'received'
RETURNING type || ' ' || event_id;

-- name: close
UPDATE payments_inboundevent
SET status = 'closed', done_at = now()
WHERE tenant_id = %(tenant)s AND id = %(id)s AND status = 'dead'
RETURNING type || ' ' || event_id;

-- name: tenants
-- Tenants with events. A loose index scan: one probe per tenant.
WITH RECURSIVE t AS (
    (SELECT tenant_id FROM payments_inboundevent ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT e.tenant_id FROM payments_inboundevent e WHERE e.tenant_id > t.tenant_id ORDER BY e.tenant_id LIMIT 1)
    FROM t WHERE t.tenant_id IS NOT NULL
)
SELECT tenant_id FROM t WHERE tenant_id IS NOT NULL;

-- name: retire
-- Delete a slice of old events that are done or closed. Dead ones stay for an operator.
DELETE FROM payments_inboundevent
WHERE (tenant_id, id) IN (
    SELECT tenant_id, id FROM payments_inboundevent
    WHERE tenant_id = %(tenant)s AND received_at > '0001-01-01Z' AND received_at < now() - make_interval(days => %(days)s::int)
      AND closed IN ('done', 'closed')
    ORDER BY received_at
    LIMIT %(slice)s
)
RETURNING id;

-- name: is_known
-- Whether a payment, refund or dispute is known here, by correlation id or the processor's reference.
SELECT EXISTS (SELECT FROM payments_payment WHERE correlation_id = %(correlation)s::uuid AND tenant_id + 0 = %(tenant)s)
    OR EXISTS (
        SELECT FROM payments_refund
        WHERE reference = %(reference)s AND reference > '' AND processor_id + 0 = %(processor)s AND tenant_id + 0 = %(tenant)s
    )
    OR EXISTS (
        SELECT FROM payments_dispute
        WHERE reference = %(reference)s AND processor_id + 0 = %(processor)s AND tenant_id + 0 = %(tenant)s
    );

-- name: subject
-- The payment that an event is about, with its latest attempt.
SELECT p.id, p.status, coalesce(p.leased_until > clock_timestamp(), false), p.amount, p.currency, p.description,
    a.processor_id, a.requested_at, a.reference, a.action
FROM payments_payment p
LEFT JOIN payments_attempt a ON a.tenant_id = p.tenant_id AND a.payment_id = p.id AND a.number = p.attempt
WHERE p.correlation_id = %(correlation)s AND p.tenant_id + 0 = %(tenant)s;

-- name: polled
-- Tenants with accounts whose events can be listed, also if the accounts are disabled: their money may still move.
SELECT DISTINCT tenant_id FROM payments_processor WHERE kind = 'stripe';

-- name: position
-- The position of an account. It starts when the account was added.
SELECT coalesce(i.read_until, p.created_at), i.pass_until, coalesce(i.cursor, '')
FROM payments_processor p
LEFT JOIN payments_inboundpoll i ON i.tenant_id = p.tenant_id AND i.processor_id = p.id
WHERE p.tenant_id = %(tenant)s AND p.id = %(processor)s;

-- name: keep_position
INSERT INTO payments_inboundpoll (tenant_id, processor_id, read_until, pass_until, cursor, at, error)
VALUES (%(tenant)s, %(processor)s, %(read_until)s, %(pass_until)s, %(cursor)s, now(), %(error)s)
ON CONFLICT (tenant_id, processor_id) DO UPDATE
SET read_until = excluded.read_until, pass_until = excluded.pass_until, cursor = excluded.cursor, at = now(),
    error = excluded.error;
