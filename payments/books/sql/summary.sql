-- name: summary
-- Whole hours and whole seconds from the roll-ups, the ragged edges from the payments themselves: the cost depends on
-- the window's edges, not on the table. One statement, so one snapshot. Bounds are half-open [from, to).
WITH span AS (
    SELECT r.processor_id, r.currency, r.payments, r.amount
    FROM payments_rollup r
    WHERE r.tenant_id = %(tenant)s AND (%(currency)s::text IS NULL OR r.currency = %(currency)s::text) AND r.width = 3600
      AND r.starts_at >= %(hours_from)s::timestamptz AND r.starts_at < %(hours_to)s::timestamptz
    UNION ALL
    SELECT r.processor_id, r.currency, r.payments, r.amount
    FROM payments_rollup r
    WHERE r.tenant_id = %(tenant)s AND (%(currency)s::text IS NULL OR r.currency = %(currency)s::text) AND r.width = 1
      AND r.starts_at >= %(head_from)s::timestamptz AND r.starts_at < %(head_to)s::timestamptz
    UNION ALL
    SELECT r.processor_id, r.currency, r.payments, r.amount
    FROM payments_rollup r
    WHERE r.tenant_id = %(tenant)s AND (%(currency)s::text IS NULL OR r.currency = %(currency)s::text) AND r.width = 1
      AND r.starts_at >= %(tail_from)s::timestamptz AND r.starts_at < %(tail_to)s::timestamptz
    UNION ALL
    SELECT a.id, e.currency, e.payments, e.amount
    FROM payments_processor a
    CROSS JOIN LATERAL (
        SELECT p.currency, count(*) AS payments, sum(p.amount) AS amount
        FROM payments_payment p
        WHERE p.processor_id = a.id AND p.tenant_id + 0 = %(tenant)s AND p.closed = 'succeeded'
          AND (%(currency)s::text IS NULL OR p.currency = %(currency)s::text)
          AND p.requested_at >= %(first_from)s::timestamptz AND p.requested_at < %(first_to)s::timestamptz
        GROUP BY p.currency
        UNION ALL
        SELECT p.currency, count(*), sum(p.amount)
        FROM payments_payment p
        WHERE p.processor_id = a.id AND p.tenant_id + 0 = %(tenant)s AND p.closed = 'succeeded'
          AND (%(currency)s::text IS NULL OR p.currency = %(currency)s::text)
          AND p.requested_at >= %(last_from)s::timestamptz AND p.requested_at < %(last_to)s::timestamptz
        GROUP BY p.currency
    ) e
    WHERE a.tenant_id = %(tenant)s
)
SELECT a.name, coalesce(s.currency, ''), coalesce(sum(s.payments), 0)::bigint, coalesce(sum(s.amount), 0)::bigint
FROM payments_processor a LEFT JOIN span s ON s.processor_id = a.id
WHERE a.tenant_id = %(tenant)s
GROUP BY a.id, a.name, s.currency
ORDER BY a.id;
