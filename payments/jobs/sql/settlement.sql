-- name: slice
-- Sums of the next `limit` ledger entries of a tenant, by day in a time zone, processor and currency; and the last entry's id. The
-- range of time is compared after the slice is taken, so that each statement reads a bounded number of rows.
WITH entries AS MATERIALIZED (
    SELECT * FROM payments_ledgerentry WHERE tenant_id = %(tenant)s AND id > %(after)s ORDER BY id LIMIT %(limit)s
), sums AS (
    SELECT (at AT TIME ZONE %(zone)s)::date AS day, processor_id, currency,
        coalesce(sum(amount) FILTER (WHERE account = 'processor' AND cause = 'payment'), 0)::bigint AS gross,
        coalesce(-sum(amount) FILTER (WHERE account = 'fees'), 0)::bigint AS fees,
        coalesce(-sum(amount) FILTER (WHERE account = 'processor' AND cause = 'refund'), 0)::bigint AS refunds,
        coalesce(-sum(amount) FILTER (WHERE account = 'processor' AND cause = 'dispute'), 0)::bigint AS disputes,
        coalesce(-sum(amount) FILTER (WHERE account = 'balance'), 0)::bigint AS net
    FROM entries
    WHERE at >= %(start)s AND at < %(until)s
    GROUP BY 1, 2, 3
)
SELECT s.day, r.name, s.currency, s.gross, s.fees, s.refunds, s.disputes, s.net, (SELECT count(*) FROM entries), (SELECT max(id) FROM entries)
FROM (SELECT 1) one LEFT JOIN sums s ON true LEFT JOIN payments_processor r ON r.tenant_id = %(tenant)s AND r.id = s.processor_id;
