-- name: book
-- Book a payment in the sandbox processor's own records, once per id.
INSERT INTO payments_sandboxbooking (processor_id, correlation_id, amount, currency, requested_at, booked_at)
SELECT *, now() FROM unnest(%(processor)b::bigint[], %(correlation)b::uuid[], %(amount)b::bigint[], %(currency)b::text[],
    %(requested_at)b::timestamptz[])
ON CONFLICT (processor_id, correlation_id) DO NOTHING
RETURNING processor_id, correlation_id;

-- name: look_up
SELECT 1 FROM payments_sandboxbooking WHERE processor_id = %(processor)s AND correlation_id = %(correlation)s;

-- name: refund
-- Refund a booked payment, once per id of a refund.
INSERT INTO payments_sandboxrefund (processor_id, refund_id, correlation_id, amount, currency, requested_at, booked_at)
SELECT r.processor_id, r.refund_id, r.correlation_id, r.amount, r.currency, r.requested_at, now()
FROM unnest(%(processor)b::bigint[], %(refund)b::uuid[], %(correlation)b::uuid[], %(amount)b::bigint[], %(currency)b::text[],
    %(requested_at)b::timestamptz[]) AS r (processor_id, refund_id, correlation_id, amount, currency, requested_at)
JOIN payments_sandboxbooking b USING (processor_id, correlation_id)
ON CONFLICT (processor_id, refund_id) DO NOTHING;

-- name: look_up_refund
SELECT processor_id, refund_id FROM payments_sandboxrefund
WHERE (processor_id, refund_id) IN (SELECT * FROM unnest(%(processor)b::bigint[], %(refund)b::uuid[]));

-- name: records
-- A page of the books, in the order of the table's key.
SELECT b.correlation_id, b.amount, b.currency, b.requested_at,
    (SELECT coalesce(sum(r.amount), 0)::bigint FROM payments_sandboxrefund r
        WHERE r.processor_id = b.processor_id AND r.correlation_id = b.correlation_id)
FROM payments_sandboxbooking b
WHERE b.processor_id = %(processor)s AND b.correlation_id > %(after)s
  AND b.requested_at >= %(since)s AND b.requested_at <= %(until)s
ORDER BY b.correlation_id
LIMIT %(limit)s;
