-- name: cancel
-- Cancel a queued payment (compare and set: a claim may win) and number its event in the same statement.
WITH moved AS (
    UPDATE payments_payment SET status = 'canceled', sequence = sequence + 1, changed_at = now()
    WHERE correlation_id = %(correlation)s AND tenant_id + 0 = %(tenant)s AND status = 'queued'
    RETURNING tenant_id, id, sequence, attempt
), numbered AS MATERIALIZED (
    SELECT tenant_id, payments_number(tenant_id, 1) AS position FROM moved
)
INSERT INTO payments_paymentevent (tenant_id, position, payment_id, sequence, status, attempt, at, detail)
SELECT m.tenant_id, n.position, m.id, m.sequence, 'canceled', m.attempt, now(), 'Canceled by the sender'
FROM moved m JOIN numbered n USING (tenant_id)
RETURNING position, sequence;

-- name: look_again
-- Make payments at a processor due at once, because they may have changed there. A payment that requires an action becomes
-- `processing` (compare and set, its event numbered in the same statement). A leased payment keeps its lease: a run_at after the
-- claim tells `settle` that the worker's answer may be older than the change. A payment that workers gave up gets all of its
-- attempts again. By clock_timestamp(): now() may be before a claim that this statement had to wait for.
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
), numbered AS MATERIALIZED (
    SELECT tenant_id, payments_number(tenant_id, events) AS position
    FROM (SELECT tenant_id, count(*) AS events FROM due WHERE waits GROUP BY tenant_id ORDER BY tenant_id OFFSET 0) t
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
-- The sender's requests for a payment: a repeated request gets the same answer, however the payment ended.
SELECT p.canceling, coalesce((p.method ->> 'capture')::boolean, false),
    CASE WHEN p.status = 'requires_action' THEN coalesce(a.action ->> 'type', '') ELSE '' END
FROM payments_payment p
LEFT JOIN payments_attempt a ON a.tenant_id = p.tenant_id AND a.payment_id = p.id AND a.number = p.attempt
WHERE p.correlation_id = %(correlation)s AND p.tenant_id + 0 = %(tenant)s;
