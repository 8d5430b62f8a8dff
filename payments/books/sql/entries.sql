-- name: totals
-- By currency: bookings from the roll-ups by hour, refunds and disputes from their entries, which are few and have their own index.
-- An entry of the account `balance` is positive where money was taken from the tenant.
SELECT currency, sum(payments)::bigint AS payments, sum(gross)::bigint, sum(fees)::bigint, sum(refunds)::bigint, sum(disputes)::bigint
FROM (
    SELECT currency, sum(payments) AS payments, sum(amount) AS gross, sum(fee) AS fees, 0 AS refunds, 0 AS disputes
    FROM payments_rollup WHERE tenant_id = %(tenant)s AND width = 3600 GROUP BY currency
    UNION ALL
    SELECT currency, 0, 0, 0, coalesce(sum(amount) FILTER (WHERE cause = 'refund'), 0), coalesce(sum(amount) FILTER (WHERE cause = 'dispute'), 0)
    FROM payments_ledgerentry
    WHERE tenant_id = %(tenant)s AND cause <> 'payment' AND account = 'balance' GROUP BY currency
) b
GROUP BY currency
ORDER BY payments DESC, currency;

-- name: first_since
-- The id from which a tenant's entries are of that time or later, by bisection of the primary key: the time has no index, which
-- every settlement would have to maintain. About twenty look-ups for a million entries.
WITH RECURSIVE search (low, high) AS (
    SELECT first.id, last.id + 1
    FROM (SELECT id FROM payments_ledgerentry WHERE tenant_id = %(tenant)s ORDER BY id LIMIT 1) first,
        (SELECT id FROM payments_ledgerentry WHERE tenant_id = %(tenant)s ORDER BY id DESC LIMIT 1) last
    UNION ALL
    SELECT CASE WHEN m.at < %(at)s THEN m.id + 1 ELSE s.low END, CASE WHEN m.at < %(at)s THEN s.high ELSE (s.low + s.high) / 2 END
    FROM search s CROSS JOIN LATERAL (
        SELECT id, at FROM payments_ledgerentry WHERE tenant_id = %(tenant)s AND id >= (s.low + s.high) / 2 ORDER BY id LIMIT 1
    ) m
    WHERE s.low < s.high
)
SELECT low FROM search WHERE low >= high LIMIT 1;
