-- Statements of check_books. Each compares within one snapshot. OFFSET 0 and `tenant_id + 0` keep to one look-up per row by the
-- index that begins with the payment (docs/decisions/024): the cost grows with the rows of a slice, never with the table.

-- name: payment_page
SELECT max(id), count(*) FROM (
    SELECT id FROM payments_payment WHERE tenant_id = %(tenant)s AND id > %(after)s ORDER BY tenant_id, id LIMIT %(limit)s
) page;

-- name: payment_last
SELECT id FROM payments_payment WHERE tenant_id = %(tenant)s ORDER BY tenant_id DESC, id DESC LIMIT 1;

-- name: payments
-- Payments that differ from their events, ledger lines, booked attempt or refunds. The events and lines themselves are read for
-- these only.
WITH slice AS MATERIALIZED (
    SELECT id, correlation_id, status, sequence, amount, currency, fee, processor_id, requested_at, refunded, owed_back
    FROM payments_payment WHERE tenant_id = %(tenant)s AND id > %(after)s AND id <= %(last)s
)
SELECT p.id, p.correlation_id, p.status, p.sequence, p.amount, p.currency, p.fee, p.processor_id, p.requested_at, p.refunded,
    p.owed_back, r.refunded, r.owed_back, a.booked,
    (
        SELECT coalesce(jsonb_agg(jsonb_build_array(e.sequence, e.position, e.status, e.kind, e.subject_id, e.at) ORDER BY e.sequence, e.position), '[]')
        FROM payments_paymentevent e WHERE e.payment_id = p.id AND e.tenant_id + 0 = %(tenant)s
    ),
    (
        SELECT coalesce(jsonb_agg(jsonb_build_array(l.id, l.account, l.amount, l.currency, l.processor_id) ORDER BY l.id), '[]')
        FROM payments_ledgerentry l WHERE l.payment_id = p.id AND l.tenant_id + 0 = %(tenant)s AND l.cause = 'payment'
    )
FROM slice p
CROSS JOIN LATERAL (
    SELECT count(*) AS n, min(e.sequence) AS first, max(e.sequence) AS last, sum(e.sequence) AS total,
        bool_or(e.sequence = p.sequence AND e.status = p.status) AS current,
        min(e.position) AS oldest, min(e.position) FILTER (WHERE e.sequence = 1) AS opening,
        max(e.position) AS newest, max(e.position) FILTER (WHERE e.sequence = p.sequence) AS latest
    FROM payments_paymentevent e WHERE e.payment_id = p.id AND e.tenant_id + 0 = %(tenant)s
) e
CROSS JOIN LATERAL (
    SELECT count(*) AS n, count(DISTINCT l.account) AS accounts, sum(l.amount) FILTER (WHERE l.account = 'processor') AS gross,
        sum(l.amount) FILTER (WHERE l.account = 'fees') AS fees, sum(l.amount) FILTER (WHERE l.account = 'balance') AS balance,
        min(l.currency) AS currency, max(l.currency) AS other_currency,
        min(l.processor_id) AS processor_id, max(l.processor_id) AS other_processor_id
    FROM payments_ledgerentry l WHERE l.payment_id = p.id AND l.tenant_id + 0 = %(tenant)s AND l.cause = 'payment'
) l
CROSS JOIN LATERAL (
    SELECT coalesce(sum(r.amount) FILTER (WHERE r.status = 'returned'), 0)::bigint AS refunded,
        coalesce(sum(r.amount) FILTER (WHERE r.status <> 'failed'), 0)::bigint AS owed_back
    FROM payments_refund r WHERE r.payment_id = p.id AND r.tenant_id + 0 = %(tenant)s
) r
CROSS JOIN LATERAL (
    SELECT coalesce(bool_or(a.processor_id = p.processor_id AND a.requested_at = p.requested_at), false) AS booked
    FROM payments_attempt a WHERE a.tenant_id = %(tenant)s AND a.payment_id = p.id AND a.outcome = 'booked'
) a
WHERE e.n <> p.sequence OR e.first IS DISTINCT FROM 1 OR e.last IS DISTINCT FROM p.sequence
    OR e.total IS DISTINCT FROM p.sequence::bigint * (p.sequence + 1) / 2 OR e.current IS NOT TRUE
    OR e.oldest IS DISTINCT FROM e.opening OR e.newest IS DISTINCT FROM e.latest
    OR r.refunded <> p.refunded OR r.owed_back <> p.owed_back
    OR CASE WHEN p.status <> 'succeeded' THEN l.n <> 0 ELSE
        NOT a.booked OR p.fee IS NULL OR l.n <> 3 OR l.accounts <> 3
        OR l.gross IS DISTINCT FROM p.amount OR l.fees IS DISTINCT FROM -p.fee OR l.balance IS DISTINCT FROM p.fee - p.amount
        OR (l.currency, l.other_currency) IS DISTINCT FROM (p.currency, p.currency)
        OR (l.processor_id, l.other_processor_id) IS DISTINCT FROM (p.processor_id, p.processor_id)
    END
ORDER BY p.id;

-- name: line_page
SELECT max(id), count(*) FROM (
    SELECT id FROM payments_ledgerentry WHERE tenant_id = %(tenant)s AND id > %(after)s ORDER BY tenant_id, id LIMIT %(limit)s
) page;

-- name: line_last
SELECT id FROM payments_ledgerentry WHERE tenant_id = %(tenant)s ORDER BY tenant_id DESC, id DESC LIMIT 1;

-- name: lines
-- Ledger lines without the payment, refund or dispute that they were written for.
WITH slice AS MATERIALIZED (
    SELECT id, payment_id, account, amount, currency, cause, cause_id
    FROM payments_ledgerentry WHERE tenant_id = %(tenant)s AND id > %(after)s AND id <= %(last)s
)
SELECT l.id, l.account, l.amount, l.currency, l.cause, l.cause_id, l.payment_id, p.correlation_id, c.payment_id
FROM slice l
LEFT JOIN LATERAL (
    SELECT p.correlation_id FROM payments_payment p WHERE p.tenant_id = %(tenant)s AND p.id = l.payment_id OFFSET 0
) p ON true
LEFT JOIN LATERAL (
    SELECT r.payment_id FROM payments_refund r
    WHERE l.cause = 'refund' AND r.tenant_id = %(tenant)s AND r.id = l.cause_id
    UNION ALL
    SELECT d.payment_id FROM payments_dispute d
    WHERE l.cause = 'dispute' AND d.tenant_id = %(tenant)s AND d.id = l.cause_id
    OFFSET 0
) c ON true
WHERE p.correlation_id IS NULL OR (l.cause <> 'payment' AND c.payment_id IS DISTINCT FROM l.payment_id)
ORDER BY l.id;

-- name: recount
-- What the lines of the ledger add up to, by processor and currency: booked payments, their amounts, and what is owed to the tenant.
SELECT l.processor_id, coalesce(r.name, ''), l.currency, l.payments, l.gross, l.balance
FROM (
    SELECT processor_id, currency, count(*) FILTER (WHERE cause = 'payment' AND account = 'processor') AS payments,
        coalesce(sum(amount) FILTER (WHERE cause = 'payment' AND account = 'processor'), 0)::bigint AS gross,
        (-coalesce(sum(amount) FILTER (WHERE account = 'balance'), 0))::bigint AS balance
    FROM payments_ledgerentry WHERE tenant_id = %(tenant)s
    GROUP BY processor_id, currency
) l
LEFT JOIN payments_processor r ON r.tenant_id = %(tenant)s AND r.id = l.processor_id;

-- name: refund_page
SELECT max(id), count(*) FROM (
    SELECT id FROM payments_refund WHERE tenant_id = %(tenant)s AND id > %(after)s ORDER BY tenant_id, id LIMIT %(limit)s
) page;

-- name: refund_last
SELECT id FROM payments_refund WHERE tenant_id = %(tenant)s ORDER BY tenant_id DESC, id DESC LIMIT 1;

-- name: refunds
-- Refunds that differ from their lines: two lines where it was returned; two more for each time that it failed or was returned again.
WITH slice AS MATERIALIZED (
    SELECT id, payment_id, public_id, amount, currency, processor_id, status
    FROM payments_refund WHERE tenant_id = %(tenant)s AND id > %(after)s AND id <= %(last)s
)
SELECT f.public_id, p.correlation_id, f.payment_id, f.amount, f.currency, f.status, l.n, l.back, l.held
FROM slice f
LEFT JOIN LATERAL (
    SELECT p.correlation_id, p.currency, p.processor_id FROM payments_payment p
    WHERE p.tenant_id = %(tenant)s AND p.id = f.payment_id OFFSET 0
) p ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS n, coalesce(sum(l.amount) FILTER (WHERE l.account = 'balance'), 0)::bigint AS back,
        coalesce(-sum(l.amount) FILTER (WHERE l.account = 'processor'), 0)::bigint AS held,
        coalesce(bool_and(l.currency = f.currency AND l.processor_id = f.processor_id AND l.account IN ('balance', 'processor')), true) AS own
    FROM payments_ledgerentry l
    WHERE l.payment_id = f.payment_id AND l.tenant_id + 0 = %(tenant)s AND l.cause = 'refund' AND l.cause_id = f.id
) l
WHERE p.correlation_id IS NULL OR NOT l.own
    OR l.back <> CASE f.status WHEN 'returned' THEN f.amount ELSE 0 END OR l.held <> l.back
    OR l.n %% 4 <> CASE f.status WHEN 'returned' THEN 2 ELSE 0 END
ORDER BY f.id;

-- name: dispute_page
SELECT max(id), count(*) FROM (
    SELECT id FROM payments_dispute WHERE tenant_id = %(tenant)s AND id > %(after)s ORDER BY tenant_id, id LIMIT %(limit)s
) page;

-- name: dispute_last
SELECT id FROM payments_dispute WHERE tenant_id = %(tenant)s ORDER BY tenant_id DESC, id DESC LIMIT 1;

-- name: disputes
-- Disputes whose withheld amount differs from their lines.
WITH slice AS MATERIALIZED (
    SELECT id, payment_id, reference, withdrawn, currency, processor_id
    FROM payments_dispute WHERE tenant_id = %(tenant)s AND id > %(after)s AND id <= %(last)s
)
SELECT d.reference, p.correlation_id, d.payment_id, d.withdrawn, d.currency, l.n, l.back, l.held
FROM slice d
LEFT JOIN LATERAL (
    SELECT p.correlation_id FROM payments_payment p WHERE p.tenant_id = %(tenant)s AND p.id = d.payment_id OFFSET 0
) p ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS n, coalesce(sum(l.amount) FILTER (WHERE l.account = 'balance'), 0)::bigint AS back,
        coalesce(-sum(l.amount) FILTER (WHERE l.account = 'processor'), 0)::bigint AS held,
        coalesce(bool_and(l.currency = d.currency AND l.processor_id = d.processor_id AND l.account IN ('balance', 'processor')), true) AS own
    FROM payments_ledgerentry l
    WHERE l.payment_id = d.payment_id AND l.tenant_id + 0 = %(tenant)s AND l.cause = 'dispute' AND l.cause_id = d.id
) l
WHERE p.correlation_id IS NULL OR NOT l.own OR l.back <> d.withdrawn OR l.held <> l.back OR l.n %% 2 <> 0
ORDER BY d.id;

-- name: accounts
-- Processors of the tenant, and those that its roll-ups name.
SELECT id, name FROM payments_processor WHERE tenant_id = %(tenant)s
UNION
SELECT r.processor_id, coalesce(p.name, '') FROM payments_rollup r LEFT JOIN payments_processor p ON p.id = r.processor_id
WHERE r.tenant_id = %(tenant)s AND r.width = 3600 AND p.tenant_id IS DISTINCT FROM r.tenant_id
ORDER BY 1;

-- name: rollup_end
-- The end of the next slice of a processor's booked payments: a whole hour, and `infinity` for the last one.
SELECT coalesce((
    SELECT date_bin('1 hour', requested_at, 'epoch') + interval '1 hour' FROM payments_payment
    WHERE processor_id = %(processor)s AND tenant_id + 0 = %(tenant)s AND closed = 'succeeded'
      AND requested_at >= %(start)s::text::timestamptz
    ORDER BY processor_id, requested_at OFFSET %(limit)s LIMIT 1
), 'infinity')::text;

-- name: rollups
-- Roll-ups that differ from the payments booked in their second or hour. The first row has the number of these payments.
WITH seconds AS MATERIALIZED (
    SELECT date_bin('1 second', requested_at, 'epoch') AS starts_at, currency, count(*) AS payments, sum(amount) AS amount, sum(fee) AS fee
    FROM payments_payment
    WHERE processor_id = %(processor)s AND tenant_id + 0 = %(tenant)s AND closed = 'succeeded'
      AND requested_at >= %(start)s::text::timestamptz AND requested_at < %(end)s::text::timestamptz
    GROUP BY 1, 2
), counted AS (
    SELECT 1 AS width, starts_at, currency, payments, amount, fee FROM seconds
    UNION ALL
    SELECT 3600, date_bin('1 hour', starts_at, 'epoch'), currency, sum(payments), sum(amount), sum(fee) FROM seconds GROUP BY 2, 3
), rolled AS (
    SELECT r.width, r.starts_at, r.currency, r.payments, r.amount, r.fee
    FROM (VALUES (1), (3600)) AS w (width) CROSS JOIN LATERAL (
        SELECT * FROM payments_rollup r
        WHERE r.tenant_id = %(tenant)s AND r.width = w.width AND r.starts_at >= %(start)s::text::timestamptz
          AND r.starts_at < %(end)s::text::timestamptz AND r.processor_id = %(processor)s OFFSET 0
    ) r
    WHERE (r.payments, r.amount, r.fee) <> (0, 0, 0)
)
SELECT NULL, NULL::timestamptz, NULL, NULL::bigint, NULL::bigint, NULL::bigint, coalesce(sum(payments), 0)::bigint, NULL::bigint, NULL::bigint
FROM seconds
UNION ALL
(
    SELECT width, starts_at, currency, coalesce(r.payments, 0)::bigint, coalesce(r.amount, 0)::bigint, coalesce(r.fee, 0)::bigint,
        coalesce(c.payments, 0)::bigint, coalesce(c.amount, 0)::bigint, coalesce(c.fee, 0)::bigint
    FROM counted c FULL JOIN rolled r USING (width, starts_at, currency)
    WHERE (c.payments, c.amount, c.fee) IS DISTINCT FROM (r.payments::numeric, r.amount::numeric, r.fee::numeric)
    ORDER BY 2, 1
);

-- name: stream
SELECT position, purged_until FROM payments_latest WHERE tenant_id = %(tenant)s;

-- name: numbers
-- Numbers without an event, as ranges, and events without a payment. Numbers up to `purged_until` may be missing: they are counted
-- by `purged`. The first row has the number of events.
WITH slice AS MATERIALIZED (
    SELECT position, payment_id FROM payments_paymentevent
    WHERE tenant_id = %(tenant)s AND position > %(after)s AND position <= %(last)s
), numbered AS (
    SELECT position FROM slice UNION ALL VALUES (%(after)s::bigint), (%(last)s::bigint + 1)
), gaps AS (
    SELECT greatest(position + 1, s.purged_until + 1) AS first, following - 1 AS last
    FROM (SELECT position, lead(position) OVER (ORDER BY position) AS following FROM numbered) n
    CROSS JOIN (SELECT purged_until FROM payments_stream WHERE tenant_id = %(tenant)s) s
    WHERE following > position + 1
)
SELECT 'events', count(*), NULL::bigint FROM slice
UNION ALL
SELECT 'missing', first, last FROM gaps WHERE first <= last
UNION ALL
(
    SELECT 'stray', e.position, e.payment_id
    FROM slice e LEFT JOIN LATERAL (
        SELECT p.id FROM payments_payment p WHERE p.tenant_id = %(tenant)s AND p.id = e.payment_id OFFSET 0
    ) p ON true
    WHERE p.id IS NULL
    ORDER BY e.position
);

-- name: purged
-- Events up to the latest one that a purge deleted: how many numbers, events and deleted events there are.
SELECT s.purged_until, s.purged, (
    SELECT count(*) FROM payments_paymentevent e WHERE e.tenant_id = s.tenant_id AND e.position <= s.purged_until
)
FROM payments_stream s WHERE s.tenant_id = %(tenant)s;
