-- name: hold_sandbox
-- Lock the tenant as a sandbox until the caller's transaction ends: going live and purging wait for each other.
SELECT id FROM registry_tenant WHERE id = %(tenant)s AND mode = 'sandbox' FOR SHARE;

-- name: purge_clock
SELECT now();

-- name: purge_page
-- The next payments to be removed, oldest first. It includes payments that another purge is removing: only an empty page
-- is the end.
SELECT id, created_at FROM payments_payment
WHERE tenant_id = %(tenant)s AND created_at > '0001-01-01Z' AND (created_at, id) > (%(after)s, %(after_id)s)
  AND created_at <= %(before)s
ORDER BY tenant_id, created_at, id LIMIT %(limit)s;

-- name: purge_payments
-- Waits for payments that a worker is settling. Their children are committed then, but too late for this statement's snapshot:
-- the next statements see them.
DELETE FROM payments_payment WHERE tenant_id = %(tenant)s AND id = ANY(%(ids)b::bigint[])
RETURNING id, correlation_id, closed = 'succeeded', processor_id, requested_at, currency, amount, fee;

-- name: hold_refunds
-- Wait for claims of these payments' refunds: a claim locks no payment. A refund that it changed after the start of purge_children
-- would stay, because that deletes by ctid. None is claimed afterwards: claims skip locked rows.
SELECT count(*) FROM unnest(%(ids)b::bigint[]) AS u (id) CROSS JOIN LATERAL (
    SELECT r.id FROM payments_refund r WHERE r.payment_id = u.id AND r.tenant_id + 0 = %(tenant)s ORDER BY r.id FOR UPDATE
) r;

-- name: purge_children
-- Delete the rows that refer to these payments, and the sandbox processors' bookings of them. Returns the number of events, and
-- the latest one's. One look-up per payment (by OFFSET 0)
-- and by ctid (by `+ 0`): without statistics, one look-up of all would use an index by tenant and read all its rows.
WITH attempts AS (
    DELETE FROM payments_attempt WHERE tenant_id + 0 = %(tenant)s AND ctid = ANY(ARRAY(
        SELECT s.ctid FROM unnest(%(ids)b::bigint[]) AS u (id) CROSS JOIN LATERAL (
            SELECT c.ctid FROM payments_attempt c WHERE c.tenant_id = %(tenant)s AND c.payment_id = u.id OFFSET 0
        ) s
    ))
), events AS (
    DELETE FROM payments_paymentevent WHERE tenant_id + 0 = %(tenant)s AND ctid = ANY(ARRAY(
        SELECT s.ctid FROM unnest(%(ids)b::bigint[]) AS u (id) CROSS JOIN LATERAL (
            SELECT c.ctid FROM payments_paymentevent c WHERE c.payment_id = u.id AND c.tenant_id + 0 = %(tenant)s OFFSET 0
        ) s
    )) RETURNING position
), ledger AS (
    DELETE FROM payments_ledgerentry WHERE tenant_id + 0 = %(tenant)s AND ctid = ANY(ARRAY(
        SELECT s.ctid FROM unnest(%(ids)b::bigint[]) AS u (id) CROSS JOIN LATERAL (
            SELECT c.ctid FROM payments_ledgerentry c WHERE c.payment_id = u.id AND c.tenant_id + 0 = %(tenant)s OFFSET 0
        ) s
    ))
), refunds AS (
    DELETE FROM payments_refund WHERE tenant_id + 0 = %(tenant)s AND ctid = ANY(ARRAY(
        SELECT s.ctid FROM unnest(%(ids)b::bigint[]) AS u (id) CROSS JOIN LATERAL (
            SELECT c.ctid FROM payments_refund c WHERE c.payment_id = u.id AND c.tenant_id + 0 = %(tenant)s OFFSET 0
        ) s
    ))
), disputes AS (
    DELETE FROM payments_dispute WHERE tenant_id + 0 = %(tenant)s AND ctid = ANY(ARRAY(
        SELECT s.ctid FROM unnest(%(ids)b::bigint[]) AS u (id) CROSS JOIN LATERAL (
            SELECT c.ctid FROM payments_dispute c WHERE c.payment_id = u.id AND c.tenant_id + 0 = %(tenant)s OFFSET 0
        ) s
    ))
), letters AS (
    DELETE FROM payments_deadletter WHERE tenant_id + 0 = %(tenant)s AND ctid = ANY(ARRAY(
        SELECT s.ctid FROM unnest(%(ids)b::bigint[]) AS u (id) CROSS JOIN LATERAL (
            SELECT c.ctid FROM payments_deadletter c WHERE c.payment_id = u.id AND c.tenant_id + 0 = %(tenant)s OFFSET 0
        ) s
    ))
), mine AS MATERIALIZED (
    SELECT id FROM payments_processor WHERE tenant_id = %(tenant)s
), sandbox AS (
    DELETE FROM payments_sandboxbooking b USING mine
    WHERE b.processor_id = mine.id AND b.correlation_id = ANY(%(correlations)s::uuid[])
), sandbox_refunds AS (
    DELETE FROM payments_sandboxrefund r USING mine
    WHERE r.processor_id = mine.id AND r.correlation_id = ANY(%(correlations)s::uuid[])
)
SELECT count(*), coalesce(max(position), 0) FROM events;

-- name: purge_stream
-- Record the number above which no event was deleted, so that none is given twice; how many were deleted, so that a missing number can be
-- told from a purged one; and when, so that the processors' bookings
-- of the deleted payments are not missed here: by the clock of this moment, for payments were sent while this transaction waited for them.
-- Last: the stream is locked after the roll-ups, as by settling.
UPDATE payments_stream SET position = greatest(position, %(last)s), purged = purged + %(events)s,
    purged_until = greatest(purged_until, %(last)s), purged_at = clock_timestamp()
WHERE tenant_id = %(tenant)s;

-- name: hold_rollups
-- Lock the roll-ups of the deleted payments, in the order in which settling locks them.
WITH gone AS MATERIALIZED (
    SELECT DISTINCT w.width, to_timestamp(floor(extract(epoch FROM g.at) / w.width) * w.width) AS starts_at, g.processor_id, g.currency
    FROM unnest(%(processors)b::bigint[], %(at)b::timestamptz[], %(currencies)b::text[]) AS g (processor_id, at, currency)
    CROSS JOIN (VALUES (1), (3600)) AS w (width)
)
SELECT 1 FROM payments_rollup r JOIN gone USING (width, starts_at, processor_id, currency)
WHERE r.tenant_id = %(tenant)s
ORDER BY r.tenant_id, r.width, r.starts_at, r.processor_id, r.currency FOR UPDATE OF r;

-- name: purge_rollups
-- Subtract the deleted payments from their roll-ups, and delete those that become empty. They are locked already, so that both
-- parts see the same rows.
WITH gone AS MATERIALIZED (
    SELECT w.width, to_timestamp(floor(extract(epoch FROM g.at) / w.width) * w.width) AS starts_at, g.processor_id, g.currency,
        count(*) AS payments, sum(g.amount)::bigint AS amount, sum(g.fee)::bigint AS fee
    FROM unnest(
        %(processors)b::bigint[], %(at)b::timestamptz[], %(currencies)b::text[], %(amounts)b::bigint[], %(fees)b::bigint[]
    ) AS g (processor_id, at, currency, amount, fee)
    CROSS JOIN (VALUES (1), (3600)) AS w (width)
    GROUP BY 1, 2, 3, 4
), emptied AS (
    DELETE FROM payments_rollup r USING gone g
    WHERE r.tenant_id = %(tenant)s AND r.width = g.width AND r.starts_at = g.starts_at
      AND r.processor_id = g.processor_id AND r.currency = g.currency AND r.payments = g.payments
)
UPDATE payments_rollup r
SET payments = r.payments - g.payments, amount = r.amount - g.amount, fee = r.fee - g.fee
FROM gone g
WHERE r.tenant_id = %(tenant)s AND r.width = g.width AND r.starts_at = g.starts_at
  AND r.processor_id = g.processor_id AND r.currency = g.currency AND r.payments <> g.payments;

-- name: hold_statistics
-- Lock the statistics of attempts until a time, in the order in which settling locks them.
SELECT 1 FROM payments_attemptrollup WHERE tenant_id = %(tenant)s AND starts_at <= %(before)s
ORDER BY tenant_id, width, starts_at, processor_id, status, bucket FOR UPDATE;

-- name: purge_statistics
DELETE FROM payments_attemptrollup WHERE tenant_id = %(tenant)s AND starts_at <= %(before)s;

-- name: purge_rest
-- Delete rows without a payment: differences, and bookings of a sandbox processor for a payment that was deleted while it was sent.
WITH differences AS (
    DELETE FROM payments_difference WHERE tenant_id = %(tenant)s AND id IN (
        SELECT id FROM payments_difference WHERE tenant_id = %(tenant)s LIMIT %(limit)s
    ) RETURNING 1
), booked AS MATERIALIZED (
    SELECT b.processor_id, b.correlation_id
    FROM payments_processor p JOIN payments_sandboxbooking b ON b.processor_id = p.id
    WHERE p.tenant_id = %(tenant)s AND NOT EXISTS (
        SELECT FROM payments_payment q WHERE q.tenant_id = p.tenant_id AND q.correlation_id = b.correlation_id
    )
    LIMIT %(limit)s
), bookings AS (
    DELETE FROM payments_sandboxbooking b USING booked
    WHERE b.processor_id = booked.processor_id AND b.correlation_id = booked.correlation_id
), refunds AS (
    DELETE FROM payments_sandboxrefund r USING booked
    WHERE r.processor_id = booked.processor_id AND r.correlation_id = booked.correlation_id
)
SELECT (SELECT count(*) FROM differences) + (SELECT count(*) FROM booked);

-- name: purge_left
SELECT count(*) FROM (
    SELECT 1 FROM payments_payment
    WHERE tenant_id = %(tenant)s AND created_at > '0001-01-01Z' AND created_at <= %(before)s LIMIT %(limit)s
) AS found;
