-- name: hold
-- Lock the payment of the dead letter. Booking an external payment of it takes the same lock (differences.sql).
SELECT FROM payments_payment p JOIN payments_deadletter l ON l.tenant_id = p.tenant_id AND l.payment_id = p.id
WHERE l.id = %(id)s FOR UPDATE OF p;

-- name: replay
-- Resolve the dead letter, make its payment due, number the event: all or nothing (the caller rolls back if the payment was not
-- updated). A failed payment is queued. One in doubt stays in doubt, so that it is looked up at its processor first. The attempt
-- number stays, because the fence may only grow; tries are counted from it. A payment whose booking was booked as an external
-- payment is not replayed: that would charge the payer twice.
WITH letter AS (
    UPDATE payments_deadletter SET resolution = 'replayed', resolved_at = now(), resolved_by = %(actor)s
    WHERE id = %(id)s AND resolution = ''
    RETURNING tenant_id, payment_id
), external AS MATERIALIZED (
    SELECT FROM letter l JOIN payments_payment p ON p.tenant_id = l.tenant_id AND p.id = l.payment_id
    JOIN payments_difference d ON d.tenant_id = p.tenant_id AND d.correlation_id = p.correlation_id
    WHERE d.kind = 'missing_here' AND d.resolution = 'booked'
), moved AS (
    UPDATE payments_payment p
    SET status = CASE p.status WHEN 'failed' THEN 'queued' ELSE p.status END,
        code = CASE p.status WHEN 'failed' THEN '' ELSE p.code END,
        sequence = p.sequence + 1, run_at = now(), changed_at = now(), tries_from = p.attempt
    FROM letter
    WHERE p.tenant_id = letter.tenant_id AND p.id = letter.payment_id AND p.status IN ('failed', 'uncertain')
        AND NOT EXISTS (SELECT FROM external)
    RETURNING p.tenant_id, p.id, p.correlation_id, p.status, p.amount, p.currency, p.attempt, p.changed_at, p.sequence
), numbered AS MATERIALIZED (
    SELECT tenant_id, payments_number(tenant_id, 1) AS position FROM moved
), event AS (
    INSERT INTO payments_paymentevent (tenant_id, position, payment_id, sequence, status, attempt, at, detail)
    SELECT m.tenant_id, n.position, m.id, m.sequence, m.status, m.attempt, m.changed_at, %(detail)s
    FROM moved m JOIN numbered n USING (tenant_id)
)
SELECT l.tenant_id, n.position, m.correlation_id, m.status, m.amount, m.currency, m.attempt, m.changed_at, m.sequence,
    EXISTS (SELECT FROM external)
FROM letter l
LEFT JOIN moved m ON m.tenant_id = l.tenant_id AND m.id = l.payment_id
LEFT JOIN numbered n ON n.tenant_id = l.tenant_id;
