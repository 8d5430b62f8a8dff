-- name: cancel
-- Compare and set: whoever claims the row first wins. The event is numbered in the same statement.
WITH moved AS (
    UPDATE payments_payment SET status = 'canceled', sequence = sequence + 1, changed_at = now()
    WHERE tenant_id = %(tenant)s AND correlation_id = %(correlation)s AND status = ANY(%(sources)s)
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

-- name: purge
-- Everything that hangs on the payments that this statement itself removes, and nothing else: payments accepted or
-- settled at the same moment keep their entries, and roll-ups are reduced by what went, not emptied.
WITH gone AS MATERIALIZED (
    DELETE FROM payments_payment WHERE tenant_id = %(tenant)s
    RETURNING id, closed, processor_id, requested_at, currency, amount, fee
), attempts AS (
    DELETE FROM payments_attempt a USING gone g WHERE a.tenant_id = %(tenant)s AND a.payment_id = g.id
), events AS (
    DELETE FROM payments_paymentevent e USING gone g WHERE e.tenant_id = %(tenant)s AND e.payment_id = g.id
), ledger AS (
    DELETE FROM payments_ledgerentry l USING gone g WHERE l.tenant_id = %(tenant)s AND l.payment_id = g.id
), letters AS (
    DELETE FROM payments_deadletter d USING gone g WHERE d.tenant_id = %(tenant)s AND d.payment_id = g.id
), sandbox AS (
    DELETE FROM payments_sandboxbooking b USING payments_processor p WHERE p.tenant_id = %(tenant)s AND b.processor_id = p.id
), booked AS (
    SELECT w.width, to_timestamp(floor(extract(epoch FROM g.requested_at) / w.width) * w.width) AS starts_at,
        g.processor_id, g.currency, count(*) AS payments, sum(g.amount) AS amount, sum(g.fee) AS fee
    FROM gone g CROSS JOIN (VALUES (1), (3600)) AS w (width)
    WHERE g.closed = 'succeeded'
    GROUP BY 1, 2, 3, 4
), reduced AS (
    UPDATE payments_rollup r
    SET payments = r.payments - b.payments, amount = r.amount - b.amount, fee = r.fee - b.fee
    FROM booked b
    WHERE r.tenant_id = %(tenant)s AND r.width = b.width AND r.starts_at = b.starts_at
      AND r.processor_id = b.processor_id AND r.currency = b.currency
)
SELECT count(*) FROM gone;

-- name: sweep_rollups
DELETE FROM payments_rollup WHERE tenant_id = %(tenant)s AND payments = 0;
