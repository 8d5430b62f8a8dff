-- name: known
-- Under the payment's lock.
SELECT id, status, withdrawn, movements, amount, due_by FROM payments_dispute
WHERE reference = %(reference)s AND processor_id + 0 = %(processor)s AND tenant_id + 0 = %(tenant)s;

-- name: open
INSERT INTO payments_dispute (tenant_id, payment_id, processor_id, reference, amount, currency, reason, status, due_by,
    withdrawn, movements, opened_at, closed_at, changed_at)
VALUES (%(tenant)s, %(payment)s, %(processor)s, %(reference)s, %(amount)s, %(currency)s, %(reason)s, %(status)s, %(due_by)s,
    %(withdrawn)s, %(movements)s, %(opened_at)s, CASE WHEN %(closed)s THEN now() END, now())
RETURNING id;

-- name: update
UPDATE payments_dispute
SET amount = %(amount)s, reason = %(reason)s, status = %(status)s, due_by = %(due_by)s, withdrawn = %(withdrawn)s,
    movements = %(movements)s, closed_at = CASE WHEN %(closed)s THEN coalesce(closed_at, now()) END, changed_at = now()
WHERE tenant_id = %(tenant)s AND id = %(dispute)s;
