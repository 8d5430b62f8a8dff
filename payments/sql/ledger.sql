-- name: prove
WITH lines AS (
    SELECT tenant_id, payment_id, count(*) AS n, sum(amount) AS total,
        sum(amount) FILTER (WHERE account = 'processor') AS gross,
        -sum(amount) FILTER (WHERE account = 'fees') AS fee,
        min(currency) AS currency, max(currency) AS other_currency,
        min(processor_id) AS processor_id, max(processor_id) AS other_processor_id
    FROM payments_ledgerentry
    WHERE %(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s::bigint
    GROUP BY tenant_id, payment_id
), booked AS (
    SELECT tenant_id, id, amount, fee, processor_id, currency, requested_at
    FROM payments_payment
    WHERE closed = 'succeeded' AND (%(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s::bigint)
), counted AS (
    SELECT b.tenant_id, w.width, to_timestamp(floor(extract(epoch FROM b.requested_at) / w.width) * w.width) AS starts_at,
        b.processor_id, b.currency, count(*) AS payments, sum(b.amount) AS amount, sum(b.fee) AS fee
    FROM booked b CROSS JOIN (VALUES (1), (3600)) AS w (width)
    GROUP BY 1, 2, 3, 4, 5
)
SELECT (SELECT count(*) FROM booked),
    (SELECT coalesce(sum(n), 0)::bigint FROM lines),
    (SELECT count(*) FROM lines WHERE total <> 0),
    (SELECT count(*) FROM booked b LEFT JOIN lines l ON l.tenant_id = b.tenant_id AND l.payment_id = b.id WHERE coalesce(l.n, 0) <> 3),
    (SELECT count(*) FROM lines l LEFT JOIN booked b ON b.tenant_id = l.tenant_id AND b.id = l.payment_id
        WHERE b.id IS NULL OR l.gross IS DISTINCT FROM b.amount OR l.fee IS DISTINCT FROM b.fee
            OR (l.currency, l.other_currency) IS DISTINCT FROM (b.currency, b.currency)
            OR (l.processor_id, l.other_processor_id) IS DISTINCT FROM (b.processor_id, b.processor_id)),
    (SELECT count(*) FROM counted c
        FULL JOIN (SELECT * FROM payments_rollup WHERE payments <> 0 AND (%(tenant)s::bigint IS NULL OR tenant_id = %(tenant)s::bigint)) r
            USING (tenant_id, width, starts_at, processor_id, currency)
        WHERE c.payments IS DISTINCT FROM r.payments OR c.amount IS DISTINCT FROM r.amount OR c.fee IS DISTINCT FROM r.fee);

-- name: standing
SELECT now(), last_value FROM payments_ledgerentry_id_seq;

-- name: prove_since
-- The same for what is new: payments requested since (by the index of booked ones, which begins with tenant and processor)
-- and those of newer lines, whenever they were requested; roll-ups of whole hours since. Costs what is new, not what there is.
WITH touched AS MATERIALIZED (
    SELECT p.tenant_id, p.id
    FROM payments_processor r JOIN payments_payment p ON p.tenant_id = r.tenant_id AND p.processor_id = r.id
    WHERE p.closed = 'succeeded' AND p.requested_at >= %(since)s
    UNION
    SELECT l.tenant_id, l.payment_id
    FROM registry_tenant t JOIN payments_ledgerentry l ON l.tenant_id = t.id AND l.id > %(after)s
), lines AS (
    SELECT l.tenant_id, l.payment_id, count(*) AS n, sum(l.amount) AS total,
        sum(l.amount) FILTER (WHERE l.account = 'processor') AS gross,
        -sum(l.amount) FILTER (WHERE l.account = 'fees') AS fee,
        min(l.currency) AS currency, max(l.currency) AS other_currency,
        min(l.processor_id) AS processor_id, max(l.processor_id) AS other_processor_id
    FROM touched t JOIN payments_ledgerentry l ON l.tenant_id = t.tenant_id AND l.payment_id = t.id
    GROUP BY l.tenant_id, l.payment_id
), booked AS MATERIALIZED (
    SELECT p.tenant_id, p.id, p.amount, p.fee, p.processor_id, p.currency, p.requested_at
    FROM touched t JOIN payments_payment p ON p.tenant_id = t.tenant_id AND p.id = t.id
    WHERE p.closed = 'succeeded'
), counted AS (
    SELECT b.tenant_id, w.width, to_timestamp(floor(extract(epoch FROM b.requested_at) / w.width) * w.width) AS starts_at,
        b.processor_id, b.currency, count(*) AS payments, sum(b.amount) AS amount, sum(b.fee) AS fee
    FROM booked b CROSS JOIN (VALUES (1), (3600)) AS w (width)
    WHERE b.requested_at >= %(since)s
    GROUP BY 1, 2, 3, 4, 5
)
SELECT (SELECT count(*) FROM booked),
    (SELECT coalesce(sum(n), 0)::bigint FROM lines),
    (SELECT count(*) FROM lines WHERE total <> 0),
    (SELECT count(*) FROM booked b LEFT JOIN lines l ON l.tenant_id = b.tenant_id AND l.payment_id = b.id WHERE coalesce(l.n, 0) <> 3),
    (SELECT count(*) FROM lines l LEFT JOIN booked b ON b.tenant_id = l.tenant_id AND b.id = l.payment_id
        WHERE b.id IS NULL OR l.gross IS DISTINCT FROM b.amount OR l.fee IS DISTINCT FROM b.fee
            OR (l.currency, l.other_currency) IS DISTINCT FROM (b.currency, b.currency)
            OR (l.processor_id, l.other_processor_id) IS DISTINCT FROM (b.processor_id, b.processor_id)),
    (SELECT count(*) FROM counted c
        FULL JOIN (
            SELECT r.* FROM registry_tenant t CROSS JOIN (VALUES (1), (3600)) AS w (width)
            JOIN payments_rollup r ON r.tenant_id = t.id AND r.width = w.width AND r.starts_at >= %(since)s
            WHERE r.payments <> 0
        ) r USING (tenant_id, width, starts_at, processor_id, currency)
        WHERE c.payments IS DISTINCT FROM r.payments OR c.amount IS DISTINCT FROM r.amount OR c.fee IS DISTINCT FROM r.fee);

-- name: balance
SELECT currency, sum(amount - fee)::bigint FROM payments_rollup WHERE tenant_id = %(tenant)s AND width = 3600 GROUP BY currency;
