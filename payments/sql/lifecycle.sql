-- name: cancel
-- Compare and set: whoever claims the row first wins. The event is numbered in the same statement.
WITH moved AS (
    UPDATE payments_payment SET status = 'canceled', sequence = sequence + 1, changed_at = now()
    WHERE correlation_id = %(correlation)s AND tenant_id + 0 = %(tenant)s AND status = 'queued'
    RETURNING tenant_id, id, sequence, attempt
), numbered AS (
    INSERT INTO payments_stream AS s (tenant_id, position) SELECT tenant_id, 1 FROM moved
    ON CONFLICT (tenant_id) DO UPDATE SET position = s.position + 1
    RETURNING tenant_id, position
)
INSERT INTO payments_paymentevent (tenant_id, position, payment_id, sequence, status, attempt, at, detail)
SELECT m.tenant_id, n.position, m.id, m.sequence, 'canceled', m.attempt, now(), 'Canceled by the sender'
FROM moved m JOIN numbered n USING (tenant_id)
RETURNING position;

-- name: look_again
-- Make payments that are at a processor due at once, for something may have happened to them there. What waits for an
-- action goes back to work (compare and set, its event numbered in the same statement). What is in a worker's hands stays
-- there; that it is due later than it was taken tells the settling that the worker's answer may be older than the news.
-- What workers had given up has all of its questions again: one would not do to end a doubt.
-- By clock_timestamp(): now() may lie before a claim that this statement had to wait for.
WITH found AS (
    SELECT tenant_id, id, status = 'requires_action' AS waits FROM payments_payment
    WHERE correlation_id = ANY(%(correlations)s::uuid[]) AND tenant_id + 0 = %(tenant)s
      AND status = ANY(%(statuses)s::text[])
    ORDER BY id
    FOR UPDATE
), due AS (
    UPDATE payments_payment p
    SET run_at = clock_timestamp(), status = CASE WHEN waits THEN 'processing' ELSE p.status END,
        sequence = p.sequence + waits::int, in_doubt_since = CASE WHEN waits THEN now() ELSE p.in_doubt_since END,
        tries_from = CASE WHEN p.run_at = '9999-12-31Z' THEN p.attempt ELSE p.tries_from END,
        canceling = p.canceling OR %(cancel)s,
        method = CASE WHEN %(capture)s THEN coalesce(p.method, '{}') || '{"capture": true}' ELSE p.method END,
        changed_at = CASE WHEN waits THEN now() ELSE p.changed_at END
    FROM found
    WHERE p.tenant_id = found.tenant_id AND p.id = found.id
    RETURNING p.tenant_id, p.id, p.correlation_id, p.sequence, p.attempt, waits
), numbered AS (
    INSERT INTO payments_stream AS s (tenant_id, position)
    SELECT tenant_id, count(*) FROM due WHERE waits GROUP BY tenant_id
    ON CONFLICT (tenant_id) DO UPDATE SET position = s.position + excluded.position
    RETURNING tenant_id, position
), events AS (
    INSERT INTO payments_paymentevent (tenant_id, position, payment_id, sequence, status, processor_id, attempt, at, detail)
    SELECT d.tenant_id, n.position - row_number() OVER (ORDER BY d.id DESC) + 1, d.id, d.sequence, 'processing',
        a.processor_id, d.attempt, now(), %(reason)s
    FROM due d
    JOIN numbered n USING (tenant_id)
    LEFT JOIN payments_attempt a ON a.tenant_id = d.tenant_id AND a.payment_id = d.id AND a.number = d.attempt
    WHERE d.waits
)
SELECT correlation_id, CASE WHEN waits THEN sequence END FROM due;

-- name: purpose
SELECT p.canceling AND p.status IN ('requires_action', 'processing', 'uncertain'),
    coalesce((p.method ->> 'capture')::boolean, false) AND p.status NOT IN ('failed', 'canceled'),
    CASE WHEN p.status = 'requires_action' THEN coalesce(a.action ->> 'type', '') ELSE '' END
FROM payments_payment p
LEFT JOIN payments_attempt a ON a.tenant_id = p.tenant_id AND a.payment_id = p.id AND a.number = p.attempt
WHERE p.correlation_id = %(correlation)s AND p.tenant_id + 0 = %(tenant)s;

-- name: hold_sandbox
-- It stays a sandbox until the caller's end: whoever lets it go live waits for that, and is waited for.
SELECT id FROM registry_tenant WHERE id = %(tenant)s AND mode = 'sandbox' FOR SHARE;

-- name: purge
-- The payments, and what their going means for the roll-ups. It waits for those that a worker is settling right now; what
-- hangs on them is committed then, but too late for this statement's snapshot: the next ones see it.
WITH gone AS MATERIALIZED (
    DELETE FROM payments_payment WHERE tenant_id = %(tenant)s
    RETURNING closed, processor_id, requested_at, currency, amount, fee
), sandbox AS (
    DELETE FROM payments_sandboxbooking b USING payments_processor p WHERE p.tenant_id = %(tenant)s AND b.processor_id = p.id
), given_back AS (
    DELETE FROM payments_sandboxrefund r USING payments_processor p WHERE p.tenant_id = %(tenant)s AND r.processor_id = p.id
)
SELECT w.width, to_timestamp(floor(extract(epoch FROM g.requested_at) / w.width) * w.width),
    g.processor_id, g.currency, count(*), sum(g.amount)::bigint, sum(g.fee)::bigint
FROM gone g CROSS JOIN (VALUES (1), (3600)) AS w (width)
WHERE g.closed = 'succeeded'
GROUP BY 1, 2, 3, 4
UNION ALL
SELECT 0, NULL, NULL, NULL, count(*), 0, 0 FROM gone;

-- name: purge_children
-- Everything whose payment is gone. Payments accepted or settled at the same moment stand, and so does what is theirs.
WITH attempts AS (
    DELETE FROM payments_attempt c WHERE c.tenant_id = %(tenant)s
        AND NOT EXISTS (SELECT FROM payments_payment p WHERE p.tenant_id = c.tenant_id AND p.id = c.payment_id)
), events AS (
    DELETE FROM payments_paymentevent c WHERE c.tenant_id = %(tenant)s
        AND NOT EXISTS (SELECT FROM payments_payment p WHERE p.tenant_id = c.tenant_id AND p.id = c.payment_id)
), ledger AS (
    DELETE FROM payments_ledgerentry c WHERE c.tenant_id = %(tenant)s
        AND NOT EXISTS (SELECT FROM payments_payment p WHERE p.tenant_id = c.tenant_id AND p.id = c.payment_id)
), refunds AS (
    DELETE FROM payments_refund c WHERE c.tenant_id = %(tenant)s
        AND NOT EXISTS (SELECT FROM payments_payment p WHERE p.tenant_id = c.tenant_id AND p.id = c.payment_id)
), disputes AS (
    DELETE FROM payments_dispute c WHERE c.tenant_id = %(tenant)s
        AND NOT EXISTS (SELECT FROM payments_payment p WHERE p.tenant_id = c.tenant_id AND p.id = c.payment_id)
), letters AS (
    DELETE FROM payments_deadletter c WHERE c.tenant_id = %(tenant)s
        AND NOT EXISTS (SELECT FROM payments_payment p WHERE p.tenant_id = c.tenant_id AND p.id = c.payment_id)
), differences AS (
    DELETE FROM payments_difference WHERE tenant_id = %(tenant)s  -- the sandboxes' books are gone as well
)
SELECT 1 FROM payments_rollup WHERE tenant_id = %(tenant)s  -- locked in the order in which settling locks them
ORDER BY tenant_id, width, starts_at, processor_id, currency FOR UPDATE;

-- name: purge_rollups
-- Reduced by what went, not emptied.
UPDATE payments_rollup r
SET payments = r.payments - g.payments, amount = r.amount - g.amount, fee = r.fee - g.fee
FROM unnest(%(width)b::bigint[], %(starts_at)b::timestamptz[], %(processor)b::bigint[], %(currency)b::text[],
    %(payments)b::bigint[], %(amount)b::bigint[], %(fee)b::bigint[]
) AS g (width, starts_at, processor_id, currency, payments, amount, fee)
WHERE r.tenant_id = %(tenant)s AND r.width = g.width AND r.starts_at = g.starts_at
  AND r.processor_id = g.processor_id AND r.currency = g.currency;

-- name: sweep_rollups
DELETE FROM payments_rollup WHERE tenant_id = %(tenant)s AND payments = 0;
