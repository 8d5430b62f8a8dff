INSERT INTO payments_payment (tenant_id, correlation_id, fingerprint, amount, currency, description, wanted_processor,
    status, sequence, code, processor_id, requested_at, fee, refunded, owed_back, priority, attempt, run_at, created_at, changed_at)
SELECT %(tenant)s, gen_random_uuid(), decode(md5(n::text), 'hex'), amount, 'BRL', '', '', status,
    CASE status WHEN 'queued' THEN 1 WHEN 'processing' THEN 2 ELSE 3 END
        + CASE WHEN status = 'succeeded' AND n %% 20 = 1 THEN 2 ELSE 0 END + CASE WHEN status = 'succeeded' AND n %% 100 = 2 THEN 1 ELSE 0 END,
    CASE status WHEN 'failed' THEN 'declined' ELSE '' END,
    CASE WHEN status = 'succeeded' THEN processor END, CASE WHEN status = 'succeeded' THEN at END,
    CASE WHEN status = 'succeeded' THEN round(amount * fee) END,
    CASE WHEN status = 'succeeded' AND n %% 20 = 1 THEN 100 ELSE 0 END,
    CASE WHEN status = 'succeeded' AND n %% 20 = 1 THEN 100 ELSE 0 END,
    0, CASE status WHEN 'queued' THEN 0 ELSE 1 END, at + interval '10 years', at, at
FROM (
    SELECT n, 100 + n %% 9900 AS amount,
        CASE WHEN n %% 5 = 0 THEN %(fallback)s ELSE %(default)s END AS processor,
        CASE WHEN n %% 5 = 0 THEN %(fallback_fee)s ELSE %(default_fee)s END AS fee,
        CASE WHEN n %% 100 = 98 THEN 'queued' WHEN n %% 100 = 99 THEN 'processing' WHEN n %% 100 BETWEEN 93 AND 95 THEN 'failed'
            ELSE 'succeeded' END AS status,
        date_trunc('milliseconds', now() - interval '30 days' * (1 - n / %(size)s::float8)) AS at
    FROM generate_series(%(low)s::int, %(high)s::int) n
) seed;
WITH fresh AS (
    SELECT * FROM payments_payment WHERE tenant_id = %(tenant)s AND id > %(before)s
), happened AS (
    SELECT p.id, e.sequence, e.status, e.processor_id, p.requested_at, p.created_at, e.kind
    FROM fresh p CROSS JOIN LATERAL (
        SELECT s AS sequence,
            CASE WHEN s = 1 THEN 'queued' WHEN s = 2 THEN 'processing' ELSE p.status END AS status,
            CASE WHEN s > 1 THEN p.processor_id END AS processor_id,
            CASE WHEN s < 4 THEN '' WHEN p.refunded = 0 THEN 'dispute.opened' WHEN s = 4 THEN 'refund.owed'
                ELSE 'refund.returned' END AS kind
        FROM generate_series(1, p.sequence) s
    ) e
)
INSERT INTO payments_paymentevent (tenant_id, position, payment_id, sequence, status, processor_id, attempt, at, detail, kind)
SELECT %(tenant)s, (SELECT coalesce(max(position), 0) FROM payments_paymentevent WHERE tenant_id = %(tenant)s)
    + row_number() OVER (ORDER BY id, sequence), id, sequence, status, processor_id, (sequence > 1)::int, created_at, '', kind
FROM happened;
INSERT INTO payments_attempt (tenant_id, payment_id, number, processor_id, reason, requested_at, started_at, outcome, code, latency_ms)
SELECT tenant_id, id, 1, coalesce(processor_id, %(default)s), 'cheapest healthy', created_at, created_at,
    CASE status WHEN 'succeeded' THEN 'booked' WHEN 'failed' THEN 'declined' ELSE '' END, code, 12
FROM payments_payment WHERE tenant_id = %(tenant)s AND attempt = 1 AND id > %(before)s;
WITH fresh AS MATERIALIZED (
    SELECT * FROM payments_payment WHERE tenant_id = %(tenant)s AND closed = 'succeeded' AND id > %(before)s
), refunds AS (
    INSERT INTO payments_refund (tenant_id, payment_id, public_id, number, fingerprint, amount, currency, processor_id, status,
        attempt, settled_at, run_at, created_at, changed_at, reason, actor, external, reference, code, priority, tries_from)
    SELECT tenant_id, id, gen_random_uuid(), 1, '', refunded, currency, processor_id, 'returned', 1, created_at, created_at,
        created_at, created_at, '', '', false, '', '', 0, 0
    FROM fresh WHERE refunded > 0
    RETURNING tenant_id, payment_id, id, processor_id, amount, currency
), disputes AS (
    INSERT INTO payments_dispute (tenant_id, payment_id, processor_id, reference, amount, currency, reason, status, withdrawn,
        movements, opened_at, changed_at)
    SELECT tenant_id, id, processor_id, 'du_' || id, amount, currency, 'fraudulent', 'needs_response', amount, 1, created_at, created_at
    FROM fresh WHERE sequence = 4
    RETURNING tenant_id, payment_id, id, processor_id, withdrawn, currency
)
INSERT INTO payments_ledgerentry (tenant_id, payment_id, processor_id, account, amount, currency, at, cause, cause_id)
SELECT b.tenant_id, b.id, b.processor_id, l.account, l.amount, b.currency, b.created_at, 'payment', NULL::bigint
FROM fresh b CROSS JOIN LATERAL (VALUES ('processor', b.amount), ('fees', -b.fee), ('balance', b.fee - b.amount)) AS l (account, amount)
UNION ALL
SELECT r.tenant_id, r.payment_id, r.processor_id, l.account, l.amount, r.currency, now(), 'refund', r.id
FROM refunds r CROSS JOIN LATERAL (VALUES ('processor', -r.amount), ('balance', r.amount)) AS l (account, amount)
UNION ALL
SELECT d.tenant_id, d.payment_id, d.processor_id, l.account, l.amount, d.currency, now(), 'dispute', d.id
FROM disputes d CROSS JOIN LATERAL (VALUES ('processor', -d.withdrawn), ('balance', d.withdrawn)) AS l (account, amount);
INSERT INTO payments_rollup (tenant_id, width, starts_at, processor_id, currency, payments, amount, fee)
SELECT tenant_id, width, date_bin(make_interval(secs => width), requested_at, 'epoch'), processor_id, currency, count(*), sum(amount), sum(fee)
FROM payments_payment, (VALUES (1), (3600)) AS widths (width)
WHERE closed = 'succeeded'
GROUP BY 1, 2, 3, 4, 5;
INSERT INTO payments_stream (tenant_id, position)
SELECT tenant_id, max(position) FROM payments_paymentevent WHERE tenant_id = %(tenant)s GROUP BY tenant_id
