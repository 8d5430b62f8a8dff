-- name: hold
-- Lock the payment with this correlation id, if there is one: it is not settled until the booking is decided.
SELECT status FROM payments_payment WHERE correlation_id = %(correlation)s AND tenant_id + 0 = %(tenant)s FOR UPDATE;

-- name: book
-- Book an external payment: a booking that only the processor has becomes a payment with ledger entries, roll-ups and event.
-- Its id is derived from the booking, so that it is booked once. The difference is resolved in the same statement, and only if
-- its figures are still those that the processor confirmed.
WITH chosen AS (
    UPDATE payments_difference SET resolution = 'booked', resolved_at = now(), resolved_by = %(actor)s, note = %(note)s
    WHERE tenant_id = %(tenant)s AND id = %(id)s AND resolution = '' AND kind IN ('missing_here', 'duplicate')
        AND their_amount = %(amount)s AND their_currency = %(currency)s AND reference = %(reference)s
    RETURNING *
), booked AS (
    INSERT INTO payments_payment (tenant_id, correlation_id, fingerprint, amount, currency, description, metadata,
        wanted_processor, status, sequence, code, processor_id, requested_at, fee, refunded, attempt, priority, created_at, changed_at)
    SELECT tenant_id, %(correlation)s, decode(md5(%(correlation)s::text), 'hex'), their_amount, their_currency,
        %(description)s, jsonb_build_object('external', jsonb_build_object('correlationId', correlation_id, 'reference', reference)),
        '', 'succeeded', 1, '', processor_id, date_trunc('milliseconds', requested_at), %(fee)s, 0, 1, 0, now(), now()
    FROM chosen
    ON CONFLICT (tenant_id, correlation_id) DO NOTHING
    RETURNING tenant_id, id, correlation_id, amount, currency, processor_id, requested_at, fee, changed_at
), attempt AS (
    INSERT INTO payments_attempt (tenant_id, payment_id, number, processor_id, reason, requested_at, outcome, code, reference)
    SELECT b.tenant_id, b.id, 1, b.processor_id, %(why)s, b.requested_at, 'booked', 'external', c.reference
    FROM booked b CROSS JOIN chosen c
), ledger AS (
    INSERT INTO payments_ledgerentry (tenant_id, payment_id, processor_id, account, amount, currency, at)
    SELECT b.tenant_id, b.id, b.processor_id, l.account, l.amount, b.currency, now()
    FROM booked b
    CROSS JOIN LATERAL (VALUES ('processor', b.amount), ('fees', -b.fee), ('balance', b.fee - b.amount)) AS l (account, amount)
), rolled AS (
    INSERT INTO payments_rollup AS r (tenant_id, width, starts_at, processor_id, currency, payments, amount, fee)
    SELECT b.tenant_id, w.width, to_timestamp(floor(extract(epoch FROM b.requested_at) / w.width) * w.width) AS starts_at,
        b.processor_id, b.currency, 1, b.amount, b.fee
    FROM booked b CROSS JOIN (VALUES (1), (3600)) AS w (width)
    ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (tenant_id, width, starts_at, processor_id, currency) DO UPDATE
    SET payments = r.payments + excluded.payments, amount = r.amount + excluded.amount, fee = r.fee + excluded.fee
    RETURNING 1
), numbered AS MATERIALIZED (
    SELECT tenant_id, payments_number(tenant_id, 1) AS position FROM booked WHERE (SELECT count(*) FROM rolled) >= 0  -- the roll-ups' locks come first, always
), event AS (
    INSERT INTO payments_paymentevent (tenant_id, position, payment_id, sequence, status, processor_id, attempt, at, detail)
    SELECT b.tenant_id, n.position, b.id, 1, 'succeeded', b.processor_id, 1, b.changed_at, %(description)s
    FROM booked b JOIN numbered n USING (tenant_id)
)
SELECT c.id, n.position, b.correlation_id, b.amount, b.currency, b.changed_at
FROM chosen c LEFT JOIN booked b USING (tenant_id) LEFT JOIN numbered n USING (tenant_id);
