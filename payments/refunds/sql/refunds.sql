-- name: columns
-- Of a claimed row `p`.
p.tenant_id, p.id, p.payment_id, p.public_id, y.correlation_id, p.amount, p.currency, p.reason, p.reference,
    p.status, p.attempt, p.tries_from, p.processor_id, p.requested_at,
    coalesce(greatest(p.in_doubt_since, p.leased_until), now()), p.created_at,
    extract(epoch FROM now() - coalesce(greatest(p.in_doubt_since, p.leased_until), now()))::float8,
    coalesce((SELECT a.reference FROM payments_attempt a
        WHERE a.tenant_id = p.tenant_id AND a.payment_id = p.payment_id AND a.reference <> ''
        ORDER BY a.number DESC LIMIT 1), '');

-- name: joins
JOIN payments_payment y ON y.tenant_id = p.tenant_id AND y.id = p.payment_id;

-- name: lock
-- Lock order: the payment first, then its refunds and disputes.
SELECT p.id, p.status, p.amount, p.currency, p.owed_back, p.processor_id, r.kind, r.name
FROM payments_payment p LEFT JOIN payments_processor r ON r.tenant_id = p.tenant_id AND r.id = p.processor_id
WHERE p.correlation_id = %(correlation)s AND p.tenant_id + 0 = %(tenant)s
FOR UPDATE OF p;

-- name: fingerprint
-- Of the refund with this id: a replay has the same one.
SELECT fingerprint FROM payments_refund WHERE public_id = %(public)s AND tenant_id + 0 = %(tenant)s;

-- name: insert
-- Under the payment's lock, so that its refunds are numbered without gaps. No row if there are too many.
INSERT INTO payments_refund (tenant_id, payment_id, public_id, number, fingerprint, amount, currency, reason, actor, external,
    processor_id, reference, status, code, priority, attempt, tries_from, settled_at, run_at, created_at, changed_at)
SELECT %(tenant)s, %(payment)s, %(public)s, n.number, %(fingerprint)s, %(amount)s, %(currency)s, %(reason)s, %(actor)s,
    %(external)s, %(processor)s, %(reference)s, %(status)s, '', 0, 0, 0,
    CASE WHEN %(external)s THEN now() END, now(), now(), now()
FROM (
    SELECT coalesce(max(number), 0) + 1 AS number FROM payments_refund
    WHERE payment_id = %(payment)s AND tenant_id + 0 = %(tenant)s
) n
WHERE %(external)s OR n.number <= %(most)s
RETURNING id;

-- name: move
-- Change the balance of a locked payment, write ledger entries for `back` minor units, and number the event.
WITH paid AS (
    UPDATE payments_payment
    SET owed_back = owed_back + %(owed)s, refunded = refunded + %(refunded)s, sequence = sequence + 1
    WHERE tenant_id = %(tenant)s AND id = %(payment)s
    RETURNING tenant_id, id, correlation_id, status, amount, currency, processor_id, attempt, sequence, refunded
), ledger AS (
    INSERT INTO payments_ledgerentry (tenant_id, payment_id, processor_id, account, amount, currency, at, cause, cause_id)
    SELECT p.tenant_id, p.id, p.processor_id, l.account, l.amount, p.currency, now(), %(cause)s, %(subject)s
    FROM paid p CROSS JOIN (VALUES ('processor', -%(back)s::bigint), ('balance', %(back)s::bigint)) AS l (account, amount)
    WHERE l.amount <> 0
), numbered AS MATERIALIZED (
    SELECT tenant_id, payments_number(tenant_id, 1) AS position FROM paid
), event AS (
    INSERT INTO payments_paymentevent (tenant_id, position, payment_id, sequence, status, processor_id, attempt, at, detail,
        kind, subject_id)
    SELECT p.tenant_id, n.position, p.id, p.sequence, p.status, p.processor_id, p.attempt, now(), %(detail)s, %(kind)s, %(subject)s
    FROM paid p JOIN numbered n USING (tenant_id)
    RETURNING position, at
)
SELECT p.tenant_id, e.position, p.correlation_id, p.status, p.amount, p.currency, r.name, p.attempt, e.at, p.sequence, p.refunded,
    d.disputed, d.lost
FROM paid p CROSS JOIN event e LEFT JOIN payments_processor r ON r.tenant_id = p.tenant_id AND r.id = p.processor_id
CROSS JOIN LATERAL (
    SELECT bool_or(closed_at IS NULL) AS disputed, bool_or(closed_at IS NOT NULL AND withdrawn > 0) AS lost
    FROM payments_dispute WHERE payment_id = p.id AND tenant_id + 0 = p.tenant_id
) d;

-- name: wake
-- Wake the drains after the commit: a NOTIFY in the transaction would hold a lock that all such commits share.
NOTIFY refunds;

-- name: by_id
-- Lock refunds by id if they are due and no worker has leased them. By the unique index.
SELECT {columns}
FROM unnest(%(tenant)b::bigint[], %(public)b::uuid[]) AS t (tenant_id, public_id)
CROSS JOIN LATERAL (
    SELECT * FROM payments_refund r
    WHERE r.public_id = t.public_id AND r.tenant_id + 0 = t.tenant_id AND coalesce(r.closed, '') = '' AND r.run_at <= now()
      AND (r.leased_until IS NULL OR r.leased_until < now())
    FOR UPDATE SKIP LOCKED
) p
{joins};

-- name: begin
-- Store the attempt before anything is sent, and requestedAt at the first send (again after never_returned, see settle).
-- Updates no indexed column. Runs in the transaction that locked the rows.
UPDATE payments_refund r
SET status = i.status, attempt = i.number, requested_at = coalesce(r.requested_at, i.requested_at),
    in_doubt_since = i.in_doubt_since, lease_id = %(worker)s, leased_until = now() + make_interval(secs => %(lease)s),
    changed_at = CASE WHEN r.status = i.status THEN r.changed_at ELSE now() END
FROM unnest(%(tenant)b::bigint[], %(refund)b::bigint[], %(number)b::bigint[], %(status)b::text[],
    %(requested_at)b::timestamptz[], %(in_doubt_since)b::timestamptz[]
) AS i (tenant_id, refund_id, number, status, requested_at, in_doubt_since)
WHERE i.tenant_id BETWEEN 1 AND 9223372036854775807 AND r.tenant_id = i.tenant_id AND r.id = i.refund_id;

-- name: postpone
-- Postpone refunds whose processor is unavailable. The longer a refund has waited, the longer until it is due again.
UPDATE payments_refund r
SET run_at = now() + make_interval(secs => least(30, greatest(%(seconds)s, extract(epoch FROM now() - created_at) / 8)))
FROM unnest(%(tenant)b::bigint[], %(refund)b::bigint[]) AS t (tenant_id, id)
WHERE t.tenant_id BETWEEN 1 AND 9223372036854775807 AND r.tenant_id = t.tenant_id AND r.id = t.id;

-- name: settle
-- Settle outcomes in one commit: state (compare and set, fenced by worker and attempt), balances of payments, ledger, events.
-- Payments are locked first and in order, streams last, also for refunds that do not end: booking a processor's report locks a
-- payment and the stream before the refund. If another refund has the same reference, it was booked from a report already:
-- then this refund fails (booked_already), so that the money is not counted twice.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        %(tenant)b::bigint[], %(payment)b::bigint[], %(refund)b::bigint[], %(processor)b::bigint[], %(number)b::bigint[],
        %(status)b::text[], %(code)b::text[], %(detail)b::text[], %(reference)b::text[], %(wait)b::float8[],
        %(in_doubt_since)b::timestamptz[], %(stopped)b::boolean[]
    ) AS t (tenant_id, payment_id, refund_id, processor_id, number, status, code, detail, reference, wait, in_doubt_since,
        stopped)
    WHERE tenant_id BETWEEN 1 AND 9223372036854775807
), held AS MATERIALIZED (
    SELECT p.id FROM (SELECT DISTINCT tenant_id, payment_id FROM input) i
    JOIN payments_payment p ON p.tenant_id = i.tenant_id AND p.id = i.payment_id
    ORDER BY p.tenant_id, p.id
    FOR UPDATE OF p
), checked AS MATERIALIZED (
    SELECT i.*, EXISTS (
        SELECT FROM payments_refund o
        WHERE o.reference = i.reference AND o.reference > '' AND o.processor_id + 0 = i.processor_id
          AND o.tenant_id + 0 = i.tenant_id AND o.id + 0 <> i.refund_id
    ) AS taken
    FROM input i
    WHERE (SELECT count(*) FROM held) >= 0
), settled AS (
    UPDATE payments_refund r
    SET status = CASE WHEN i.taken THEN 'failed' ELSE i.status END,
        code = CASE WHEN i.taken THEN 'booked_already' WHEN i.status = 'returned' THEN '' ELSE i.code END,
        reference = CASE WHEN i.taken OR i.reference = '' THEN r.reference ELSE i.reference END,
        in_doubt_since = CASE WHEN i.status = 'uncertain' AND NOT i.taken THEN coalesce(i.in_doubt_since, now()) END,
        requested_at = CASE WHEN i.code = 'never_returned' THEN NULL ELSE r.requested_at END,  -- a new decision, and a new key
        settled_at = CASE WHEN i.taken OR i.status IN ('returned', 'failed') THEN now() END,
        stopped_at = CASE WHEN i.stopped THEN now() END,
        run_at = CASE WHEN i.stopped THEN '9999-12-31Z'::timestamptz
            WHEN i.wait IS NULL THEN r.run_at ELSE now() + make_interval(secs => i.wait) END,
        lease_id = NULL, leased_until = NULL, changed_at = now()
    FROM checked i
    WHERE r.tenant_id = i.tenant_id AND r.id = i.refund_id
      AND r.attempt = i.number AND r.lease_id = %(worker)s AND coalesce(r.closed, '') = ''
    RETURNING r.tenant_id, r.payment_id, r.id AS refund_id, r.processor_id, r.amount, r.currency, r.status,
        CASE WHEN i.taken THEN 'Booked already' ELSE i.detail END AS detail
), closed AS (
    SELECT *, row_number() OVER (PARTITION BY tenant_id, payment_id ORDER BY refund_id DESC) - 1 AS behind
    FROM settled WHERE status IN ('returned', 'failed')
), paid AS (
    UPDATE payments_payment p
    SET owed_back = p.owed_back - c.released, refunded = p.refunded + c.returned, sequence = p.sequence + c.events
    FROM (
        SELECT tenant_id, payment_id, count(*) AS events,
            coalesce(sum(amount) FILTER (WHERE status = 'failed'), 0) AS released,
            coalesce(sum(amount) FILTER (WHERE status = 'returned'), 0) AS returned
        FROM closed GROUP BY tenant_id, payment_id
    ) c
    WHERE p.tenant_id = c.tenant_id AND p.id = c.payment_id
    RETURNING p.tenant_id, p.id AS payment_id, p.correlation_id, p.status, p.amount, p.currency, p.attempt, p.sequence, p.refunded
), ledger AS (
    INSERT INTO payments_ledgerentry (tenant_id, payment_id, processor_id, account, amount, currency, at, cause, cause_id)
    SELECT c.tenant_id, c.payment_id, c.processor_id, l.account, l.amount, c.currency, now(), 'refund', c.refund_id
    FROM closed c CROSS JOIN LATERAL (VALUES ('processor', -c.amount), ('balance', c.amount)) AS l (account, amount)
    WHERE c.status = 'returned'
), numbered AS MATERIALIZED (
    SELECT tenant_id, payments_number(tenant_id, events) AS position
    FROM (
        SELECT tenant_id, count(*) AS events FROM closed
        WHERE (SELECT count(*) FROM paid) >= 0
        GROUP BY tenant_id ORDER BY tenant_id OFFSET 0
    ) t
), events AS (
    INSERT INTO payments_paymentevent (tenant_id, position, payment_id, sequence, status, processor_id, attempt, at, detail,
        kind, subject_id)
    SELECT c.tenant_id,
        n.position - row_number() OVER (PARTITION BY c.tenant_id ORDER BY c.payment_id DESC, c.refund_id DESC) + 1,
        c.payment_id, p.sequence - c.behind, p.status, c.processor_id, p.attempt, now(), c.detail,
        'refund.' || c.status, c.refund_id
    FROM closed c JOIN paid p USING (tenant_id, payment_id) JOIN numbered n USING (tenant_id)
    RETURNING tenant_id, subject_id, position, sequence, at
)
SELECT s.tenant_id, s.refund_id, e.position, p.correlation_id, p.status, p.amount, p.currency, r.name, p.attempt, e.at, e.sequence,
    p.refunded, d.disputed, d.lost, s.status, s.detail
FROM settled s
FULL JOIN events e ON e.tenant_id = s.tenant_id AND e.subject_id = s.refund_id  -- a hash, not all pairs: each has its row of `settled`
FULL JOIN paid p ON p.tenant_id = s.tenant_id AND p.payment_id = s.payment_id
LEFT JOIN payments_processor r ON r.tenant_id = s.tenant_id AND r.id = s.processor_id
CROSS JOIN LATERAL (
    SELECT bool_or(closed_at IS NULL) AS disputed, bool_or(closed_at IS NOT NULL AND withdrawn > 0) AS lost
    FROM payments_dispute WHERE payment_id = p.payment_id AND tenant_id + 0 = p.tenant_id
) d;

-- name: subject
-- The payment that a report is about: that of our refund, else the one booked under this reference, else the one with the
-- report's correlation id unless it is booked under another reference. An attempt's reference has no index: only payments are
-- read whose ids are in the report.
WITH named AS (
    SELECT p.id, p.correlation_id, (
        SELECT a.reference FROM payments_attempt a
        WHERE a.tenant_id = p.tenant_id AND a.payment_id = p.id AND a.processor_id = %(processor)s AND a.reference > ''
          AND p.status = 'succeeded' AND p.processor_id = %(processor)s
        ORDER BY a.number DESC
        LIMIT 1
    ) AS reference
    FROM payments_payment p
    WHERE p.correlation_id = ANY(%(ids)s::uuid[]) AND p.tenant_id + 0 = %(tenant)s
), choice AS (
    SELECT p.correlation_id, 1 AS rank
    FROM payments_refund r JOIN payments_payment p ON p.tenant_id = r.tenant_id AND p.id = r.payment_id
    WHERE r.public_id = %(public)s::uuid AND r.tenant_id + 0 = %(tenant)s AND r.processor_id = %(processor)s
    UNION ALL
    SELECT correlation_id, 2 FROM named WHERE reference = %(reference)s
    UNION ALL
    SELECT correlation_id, CASE WHEN reference IS NULL OR %(reference)s = '' THEN 3 ELSE 4 END
    FROM named WHERE correlation_id = %(labelled)s::uuid
)
SELECT correlation_id, rank < 4 FROM choice ORDER BY rank LIMIT 1;

-- name: known
-- Under the payment's lock: the refund that a report is about, by our id or by the processor's.
SELECT id, status, amount, reference, code FROM payments_refund
WHERE payment_id = %(payment)s AND tenant_id + 0 = %(tenant)s
  AND (public_id = %(public)s OR (processor_id = %(processor)s AND reference = %(reference)s))
ORDER BY reference = %(reference)s DESC  -- if it was booked without our id, our own refund is void
LIMIT 1
FOR UPDATE;

-- name: close
-- End a refund without a worker's outcome. The worker that holds its lease can no longer settle it.
UPDATE payments_refund
SET status = %(status)s, code = %(code)s, reference = coalesce(nullif(%(reference)s, ''), reference),
    in_doubt_since = NULL, settled_at = now(), stopped_at = NULL, lease_id = NULL, leased_until = NULL, changed_at = now()
WHERE tenant_id = %(tenant)s AND id = %(refund)s;

-- name: stopped
-- The payment of a refund that workers gave up.
SELECT y.correlation_id
FROM payments_refund r CROSS JOIN LATERAL (
    SELECT y.correlation_id FROM payments_payment y WHERE y.tenant_id = r.tenant_id AND y.id = r.payment_id OFFSET 0
) y
WHERE r.tenant_id = %(tenant)s AND r.id = %(refund)s AND r.stopped_at IS NOT NULL AND coalesce(r.closed, '') = '';

-- name: hold_stopped
-- Lock a refund that workers gave up. Its payment is locked before it.
SELECT public_id, amount, status FROM payments_refund
WHERE tenant_id = %(tenant)s AND id = %(refund)s AND stopped_at IS NOT NULL AND coalesce(closed, '') = ''
FOR UPDATE;

-- name: retry
-- The status stays, so that a refund in doubt is looked up first. The attempt number only grows: it is the fence.
UPDATE payments_refund
SET run_at = now(), stopped_at = NULL, tries_from = attempt, changed_at = now()
WHERE tenant_id = %(tenant)s AND id = %(refund)s AND stopped_at IS NOT NULL AND coalesce(closed, '') = ''
RETURNING public_id;

-- name: of_payment
SELECT r.public_id, y.correlation_id, r.status, r.amount, r.currency, r.reason, r.reference, r.code, r.external, r.created_at,
    r.changed_at
FROM payments_payment y JOIN payments_refund r ON r.payment_id = y.id AND r.tenant_id + 0 = y.tenant_id
WHERE y.correlation_id = %(correlation)s AND y.tenant_id + 0 = %(tenant)s
  AND (%(public)s::uuid IS NULL OR r.public_id = %(public)s::uuid)
ORDER BY r.number
LIMIT %(limit)s;
