-- name: book
-- The sandbox's own books: an id that stands in them is not booked again.
INSERT INTO payments_sandboxbooking (processor_id, correlation_id, amount, currency, requested_at, booked_at)
SELECT *, now() FROM unnest(%(processor)b::bigint[], %(correlation)b::uuid[], %(amount)b::bigint[], %(currency)b::text[],
    %(requested_at)b::timestamptz[])
ON CONFLICT (processor_id, correlation_id) DO NOTHING
RETURNING processor_id, correlation_id;

-- name: look_up
SELECT 1 FROM payments_sandboxbooking WHERE processor_id = %(processor)s AND correlation_id = %(correlation)s;
