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

-- name: balance
SELECT currency, sum(amount - fee)::bigint FROM payments_rollup WHERE tenant_id = %(tenant)s AND width = 3600 GROUP BY currency;
