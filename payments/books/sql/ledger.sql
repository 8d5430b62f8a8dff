-- name: prove
-- Verify the whole ledger, or one tenant's. Lines of refunds and disputes are few and have an index of their own.
WITH lines AS (
    SELECT tenant_id, payment_id, count(*) AS n, sum(amount) AS total,
        sum(amount) FILTER (WHERE account = 'processor') AS gross,
        -sum(amount) FILTER (WHERE account = 'fees') AS fee,
        min(currency) AS currency, max(currency) AS other_currency,
        min(processor_id) AS processor_id, max(processor_id) AS other_processor_id
    FROM payments_ledgerentry
    WHERE cause = 'payment' AND (%(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s::bigint)
    GROUP BY tenant_id, payment_id
), entries AS MATERIALIZED (
    SELECT * FROM payments_ledgerentry
    WHERE cause <> 'payment' AND (%(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s::bigint)
), booked AS (
    SELECT tenant_id, id, amount, fee, processor_id, currency, requested_at, refunded, owed_back
    FROM payments_payment
    WHERE closed = 'succeeded' AND (%(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s::bigint)
), refunds AS MATERIALIZED (
    SELECT * FROM payments_refund WHERE %(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s::bigint
), disputes AS MATERIALIZED (
    SELECT * FROM payments_dispute WHERE %(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s::bigint
), counted AS (
    SELECT b.tenant_id, w.width, to_timestamp(floor(extract(epoch FROM b.requested_at) / w.width) * w.width) AS starts_at,
        b.processor_id, b.currency, count(*) AS payments, sum(b.amount) AS amount, sum(b.fee) AS fee
    FROM booked b CROSS JOIN (VALUES (1), (3600)) AS w (width)
    GROUP BY 1, 2, 3, 4, 5
), rolled AS (
    SELECT * FROM payments_rollup
    WHERE payments <> 0 AND (%(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s::bigint)
)
{errors};

-- name: latest
SELECT now(), last_value FROM payments_ledgerentry_id_seq;

-- name: prove_since
-- Verify only what changed: payments requested since (by the index of booked ones, which begins with tenant and processor),
-- payments with newer lines, payments of refunds and disputes that changed since, and roll-ups of whole hours since. The cost
-- depends on the changes, not on the size of the ledger: OFFSET 0 makes the planner look rows up one by one, because it cannot
-- know how few they are and would join whole tables.
WITH touched AS MATERIALIZED (
    SELECT p.tenant_id, p.id
    FROM payments_processor r CROSS JOIN LATERAL (
        SELECT * FROM payments_payment p
        WHERE p.processor_id = r.id AND p.tenant_id + 0 = r.tenant_id AND p.closed = 'succeeded' AND p.requested_at >= %(since)s
        OFFSET 0
    ) p
    UNION
    SELECT l.tenant_id, l.payment_id
    FROM registry_tenant t CROSS JOIN LATERAL (
        SELECT * FROM payments_ledgerentry l WHERE l.tenant_id = t.id AND l.id > %(after)s ORDER BY l.id OFFSET 0
    ) l
    UNION
    SELECT f.tenant_id, f.payment_id
    FROM registry_tenant t CROSS JOIN LATERAL (
        SELECT * FROM payments_refund f
        WHERE f.tenant_id = t.id AND f.settled_at >= %(since)s ORDER BY f.settled_at OFFSET 0
    ) f
    UNION
    SELECT d.tenant_id, d.payment_id
    FROM registry_tenant t CROSS JOIN LATERAL (
        SELECT * FROM payments_dispute d
        WHERE d.tenant_id = t.id AND d.changed_at > '0001-01-01Z' AND d.changed_at >= %(since)s ORDER BY d.changed_at OFFSET 0
    ) d
), theirs AS MATERIALIZED (
    SELECT l.* FROM touched t CROSS JOIN LATERAL (
        SELECT * FROM payments_ledgerentry l WHERE l.payment_id = t.id AND l.tenant_id + 0 = t.tenant_id OFFSET 0
    ) l
), lines AS (
    SELECT tenant_id, payment_id, count(*) AS n, sum(amount) AS total,
        sum(amount) FILTER (WHERE account = 'processor') AS gross,
        -sum(amount) FILTER (WHERE account = 'fees') AS fee,
        min(currency) AS currency, max(currency) AS other_currency,
        min(processor_id) AS processor_id, max(processor_id) AS other_processor_id
    FROM theirs
    WHERE cause = 'payment'
    GROUP BY tenant_id, payment_id
), entries AS MATERIALIZED (
    SELECT * FROM theirs WHERE cause <> 'payment'
), booked AS MATERIALIZED (
    SELECT p.tenant_id, p.id, p.amount, p.fee, p.processor_id, p.currency, p.requested_at, p.refunded, p.owed_back
    FROM touched t CROSS JOIN LATERAL (
        SELECT * FROM payments_payment p WHERE p.tenant_id = t.tenant_id AND p.id = t.id AND p.status = 'succeeded' OFFSET 0
    ) p
), refunds AS MATERIALIZED (
    SELECT f.* FROM touched t CROSS JOIN LATERAL (
        SELECT * FROM payments_refund f WHERE f.payment_id = t.id AND f.tenant_id + 0 = t.tenant_id OFFSET 0
    ) f
), disputes AS MATERIALIZED (
    SELECT d.* FROM touched t CROSS JOIN LATERAL (
        SELECT * FROM payments_dispute d WHERE d.payment_id = t.id AND d.tenant_id + 0 = t.tenant_id OFFSET 0
    ) d
), counted AS (
    SELECT b.tenant_id, w.width, to_timestamp(floor(extract(epoch FROM b.requested_at) / w.width) * w.width) AS starts_at,
        b.processor_id, b.currency, count(*) AS payments, sum(b.amount) AS amount, sum(b.fee) AS fee
    FROM booked b CROSS JOIN (VALUES (1), (3600)) AS w (width)
    WHERE b.requested_at >= %(since)s
    GROUP BY 1, 2, 3, 4, 5
), rolled AS (
    SELECT r.* FROM registry_tenant t CROSS JOIN (VALUES (1), (3600)) AS w (width)
    CROSS JOIN LATERAL (
        SELECT * FROM payments_rollup r WHERE r.tenant_id = t.id AND r.width = w.width AND r.starts_at >= %(since)s OFFSET 0
    ) r
    WHERE r.payments <> 0
)
{errors};

-- name: errors
-- The last part of both statements: count the errors. A refund or dispute is wrong if its lines differ from it (in number, amount,
-- currency, processor), or if its payment has other sums.
, causes AS (
    SELECT tenant_id, payment_id, cause, cause_id, count(*) AS n, sum(amount) AS total,
        coalesce(sum(amount) FILTER (WHERE account = 'balance'), 0) AS back,
        count(*) FILTER (WHERE account NOT IN ('balance', 'processor')) AS stray,
        min(currency) AS currency, max(currency) AS other_currency,
        min(processor_id) AS processor_id, max(processor_id) AS other_processor_id
    FROM entries
    GROUP BY tenant_id, payment_id, cause, cause_id
), owing AS (
    SELECT tenant_id, payment_id,
        coalesce(sum(amount) FILTER (WHERE status = 'returned'), 0) AS refunded,
        coalesce(sum(amount) FILTER (WHERE status <> 'failed'), 0) AS owed_back
    FROM refunds
    GROUP BY tenant_id, payment_id
)
SELECT (SELECT count(*) FROM booked),
    (SELECT coalesce(sum(n), 0)::bigint FROM lines) + (SELECT count(*) FROM entries),
    (SELECT count(*) FROM lines WHERE total <> 0) + (SELECT count(*) FROM causes WHERE total <> 0),
    (SELECT count(*) FROM booked b LEFT JOIN lines l ON l.tenant_id = b.tenant_id AND l.payment_id = b.id WHERE coalesce(l.n, 0) <> 3),
    (SELECT count(*) FROM lines l LEFT JOIN booked b ON b.tenant_id = l.tenant_id AND b.id = l.payment_id
        WHERE b.id IS NULL OR l.gross IS DISTINCT FROM b.amount OR l.fee IS DISTINCT FROM b.fee
            OR (l.currency, l.other_currency) IS DISTINCT FROM (b.currency, b.currency)
            OR (l.processor_id, l.other_processor_id) IS DISTINCT FROM (b.processor_id, b.processor_id)),
    (SELECT count(*) FROM counted c FULL JOIN rolled r USING (tenant_id, width, starts_at, processor_id, currency)
        WHERE c.payments IS DISTINCT FROM r.payments OR c.amount IS DISTINCT FROM r.amount OR c.fee IS DISTINCT FROM r.fee),
    (SELECT count(*) FROM refunds f
        FULL JOIN (SELECT * FROM causes WHERE cause = 'refund') l ON l.tenant_id = f.tenant_id AND l.cause_id = f.id
        WHERE f.id IS NULL OR coalesce(l.stray, 0) <> 0
            OR coalesce(l.back, 0) <> CASE f.status WHEN 'returned' THEN f.amount ELSE 0 END
            OR coalesce(l.n, 0) %% 4 <> CASE f.status WHEN 'returned' THEN 2 ELSE 0 END
            OR (l.n IS NOT NULL AND (l.payment_id, l.currency, l.other_currency, l.processor_id, l.other_processor_id)
                IS DISTINCT FROM (f.payment_id, f.currency, f.currency, f.processor_id, f.processor_id)))
    + (SELECT count(*) FROM (SELECT * FROM booked WHERE refunded <> 0 OR owed_back <> 0) b
        FULL JOIN owing o ON o.tenant_id = b.tenant_id AND o.payment_id = b.id
        WHERE coalesce(b.refunded, 0) <> coalesce(o.refunded, 0) OR coalesce(b.owed_back, 0) <> coalesce(o.owed_back, 0)),
    (SELECT count(*) FROM disputes d
        FULL JOIN (SELECT * FROM causes WHERE cause = 'dispute') l ON l.tenant_id = d.tenant_id AND l.cause_id = d.id
        WHERE d.id IS NULL OR coalesce(l.stray, 0) <> 0 OR coalesce(l.back, 0) <> d.withdrawn OR coalesce(l.n, 0) %% 2 <> 0
            OR (l.n IS NOT NULL AND (l.payment_id, l.currency, l.other_currency, l.processor_id, l.other_processor_id)
                IS DISTINCT FROM (d.payment_id, d.currency, d.currency, d.processor_id, d.processor_id)));

-- name: balance
-- Booked amounts (by the roll-ups) less refunds and disputes (by the partial index of their lines).
SELECT currency, sum(amount)::bigint FROM (
    SELECT currency, sum(amount - fee) AS amount FROM payments_rollup
    WHERE tenant_id = %(tenant)s AND width = 3600 GROUP BY currency
    UNION ALL
    SELECT currency, -sum(amount) FROM payments_ledgerentry
    WHERE tenant_id = %(tenant)s AND cause <> 'payment' AND account = 'balance' GROUP BY currency
) b
GROUP BY currency;
