-- name: begin
-- A window is compared once. If it is unfinished and its lease has expired, the next worker resumes it.
INSERT INTO payments_reconciliation AS r (tenant_id, processor_id, since, until, both_ways, records, payments, differences,
    unanswered, fault, attempt, leased_until)
VALUES (%(tenant)s, %(processor)s, %(since)s, %(until)s, %(both_ways)s, 0, 0, 0, 0, '', 1,
    now() + make_interval(secs => %(lease)s))
ON CONFLICT (tenant_id, processor_id, since, until) DO UPDATE
SET attempt = r.attempt + 1, leased_until = excluded.leased_until, fault = '',
    finished_at = CASE WHEN %(again)s THEN NULL ELSE r.finished_at END,
    reached = CASE WHEN r.finished_at IS NULL THEN r.reached END,
    records = CASE WHEN r.finished_at IS NULL THEN r.records ELSE 0 END,
    payments = CASE WHEN r.finished_at IS NULL THEN r.payments ELSE 0 END,
    differences = CASE WHEN r.finished_at IS NULL THEN r.differences ELSE 0 END,
    unanswered = CASE WHEN r.finished_at IS NULL THEN r.unanswered ELSE 0 END,
    started_at = CASE WHEN r.finished_at IS NULL THEN r.started_at ELSE now() END
WHERE (r.finished_at IS NULL OR %(again)s) AND (r.leased_until IS NULL OR r.leased_until < now())
RETURNING r.id, r.attempt, r.reached;

-- name: purged_at
-- When the tenant was purged last: what was sent before is compared no more.
SELECT purged_at FROM payments_stream WHERE tenant_id = %(tenant)s AND purged_at IS NOT NULL;

-- name: reach
-- Fenced by the attempt: a worker that lost its lease writes nothing more.
UPDATE payments_reconciliation
SET reached = %(reached)s, records = records + %(records)s, payments = payments + %(payments)s,
    differences = differences + %(differences)s, unanswered = unanswered + %(unanswered)s,
    leased_until = now() + make_interval(secs => %(lease)s)
WHERE tenant_id = %(tenant)s AND id = %(id)s AND attempt = %(attempt)s
RETURNING id;

-- name: stop
UPDATE payments_reconciliation SET leased_until = NULL, fault = %(fault)s
WHERE tenant_id = %(tenant)s AND id = %(id)s AND attempt = %(attempt)s;

-- name: finish
-- Resolve as gone the open differences of the window that this comparison did not find again, if every payment was looked up
-- (`complete`) and every answer was clear.
WITH finished AS (
    UPDATE payments_reconciliation SET finished_at = now(), leased_until = NULL
    WHERE tenant_id = %(tenant)s AND id = %(id)s AND attempt = %(attempt)s
    RETURNING tenant_id, processor_id, since, until, started_at, unanswered
)
UPDATE payments_difference d SET resolution = 'gone', resolved_at = now()
FROM finished f
WHERE d.tenant_id = f.tenant_id AND d.processor_id = f.processor_id AND d.resolution = ''
  AND d.requested_at >= f.since AND d.requested_at < f.until AND d.seen_at < f.started_at
  AND (%(both_ways)s OR d.kind = 'missing_there') AND %(complete)s AND f.unanswered = 0;

-- name: result
SELECT records, payments, differences, unanswered, finished_at IS NOT NULL FROM payments_reconciliation
WHERE tenant_id = %(tenant)s AND id = %(id)s;

-- name: unfinished
-- Windows whose comparison was begun and not finished.
SELECT r.tenant_id, r.processor_id, r.since, r.until FROM payments_reconciliation r
WHERE r.tenant_id = %(tenant)s AND r.finished_at IS NULL AND r.until > now() - make_interval(secs => %(within)s)
  AND (r.leased_until IS NULL OR r.leased_until < now())
ORDER BY r.until;

-- name: slice_end
-- The end of the next slice of a window: after :rows of our payments, by the index of booked ones.
SELECT p.requested_at FROM payments_payment p
WHERE p.processor_id = %(processor)s AND p.tenant_id + 0 = %(tenant)s AND p.closed = 'succeeded'
  AND p.requested_at >= %(since)s AND p.requested_at < %(until)s
ORDER BY p.requested_at OFFSET %(rows)s LIMIT 1;

-- name: booked
-- The number of our payments in the window.
SELECT count(*) FROM payments_payment p
WHERE p.processor_id = %(processor)s AND p.tenant_id + 0 = %(tenant)s AND p.closed = 'succeeded'
  AND p.requested_at >= %(since)s AND p.requested_at < %(until)s;

-- name: columns
-- The columns of `ours` and `known`, of a payment `p`. The last one is for external payments: the correlation id of the
-- processor's record (external.EXTERNAL).
p.id, p.correlation_id, p.amount, p.currency, p.refunded, p.requested_at, p.status, p.processor_id, p.created_at, p.changed_at,
    (SELECT max(a.reference) FROM payments_attempt a WHERE a.tenant_id = p.tenant_id AND a.payment_id = p.id
        AND a.requested_at = p.requested_at),
    (SELECT p.metadata -> 'external' ->> 'correlationId' FROM payments_attempt a WHERE a.tenant_id = p.tenant_id
        AND a.payment_id = p.id AND a.number = p.attempt AND a.reason = 'booked as external');

-- name: ours
-- Our payments of a slice; with :every > 1 a sample of them.
SELECT {columns}
FROM payments_payment p
WHERE p.processor_id = %(processor)s AND p.tenant_id + 0 = %(tenant)s AND p.closed = 'succeeded'
  AND p.requested_at >= %(since)s AND p.requested_at < %(until)s AND p.id %% %(every)s = %(first)s;

-- name: known
-- Our payments with these ids, in any status and at any processor.
SELECT {columns}
FROM payments_payment p
WHERE p.correlation_id = ANY(%(correlations)s::uuid[]) AND p.tenant_id + 0 = %(tenant)s;

-- name: refunds_under_way
-- Those of these payments of which a refund changed within the last :under_way seconds: a worker may still settle it, or settled it
-- after the payment was read.
SELECT u.id FROM unnest(%(payments)s::bigint[]) AS u (id)
WHERE EXISTS (
    SELECT FROM payments_refund r WHERE r.payment_id = u.id AND r.tenant_id + 0 = %(tenant)s
        AND r.changed_at > now() - make_interval(secs => %(under_way)s)
    OFFSET 0
);

-- name: insert
-- One open row per difference, however often it is found. A difference that an operator closed is not reported again until its
-- figures change.
INSERT INTO payments_difference AS d (tenant_id, processor_id, kind, key, correlation_id, reference, payment_id, our_status,
    our_amount, our_currency, our_refunded, their_amount, their_currency, their_refunded, requested_at, resolution,
    resolved_by, note)
SELECT %(tenant)s, %(processor)s, n.kind, n.key, n.correlation_id, n.reference, n.payment_id, n.our_status, n.our_amount,
    n.our_currency, n.our_refunded, n.their_amount, n.their_currency, n.their_refunded, n.requested_at, '', '', ''
FROM unnest(%(kind)s::text[], %(key)s::text[], %(correlation_id)s::uuid[], %(reference)s::text[], %(payment_id)s::bigint[],
    %(our_status)s::text[], %(our_amount)s::bigint[], %(our_currency)s::text[], %(our_refunded)s::bigint[],
    %(their_amount)s::bigint[], %(their_currency)s::text[], %(their_refunded)s::bigint[], %(requested_at)s::timestamptz[]
) AS n (kind, key, correlation_id, reference, payment_id, our_status, our_amount, our_currency, our_refunded, their_amount,
    their_currency, their_refunded, requested_at)
WHERE n.requested_at BETWEEN '0001-01-01Z' AND '9999-12-31Z' AND NOT EXISTS (  -- true of all: see begin in settle.sql
    SELECT FROM payments_difference c
    WHERE c.key = n.key AND c.kind = n.kind AND c.processor_id + 0 = %(processor)s AND c.tenant_id + 0 = %(tenant)s
      AND c.resolution = 'closed'
      AND (c.our_status, c.our_amount, c.our_currency, c.our_refunded, c.their_amount, c.their_currency, c.their_refunded)
        IS NOT DISTINCT FROM
        (n.our_status, n.our_amount, n.our_currency, n.our_refunded, n.their_amount, n.their_currency, n.their_refunded)
)
ORDER BY n.kind, n.key
ON CONFLICT (tenant_id, processor_id, kind, key) WHERE resolution = '' DO UPDATE
SET seen_at = now(), correlation_id = excluded.correlation_id, reference = excluded.reference, payment_id = excluded.payment_id,
    our_status = excluded.our_status, our_amount = excluded.our_amount, our_currency = excluded.our_currency,
    our_refunded = excluded.our_refunded, their_amount = excluded.their_amount, their_currency = excluded.their_currency,
    their_refunded = excluded.their_refunded
RETURNING d.id;
