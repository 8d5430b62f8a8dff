-- name: dead_letters
-- Open dead letters of payments by status and currency, of the newest `limit` ones. By the partial index of open dead letters.
SELECT coalesce(p.status, ''), coalesce(p.currency, ''), count(*), coalesce(sum(p.amount), 0)::bigint, min(l.created_at)
FROM (
    SELECT tenant_id, payment_id, created_at FROM payments_deadletter
    WHERE resolution = '' AND (%(tenants)s::bigint[] IS NULL OR tenant_id = ANY(%(tenants)s::bigint[]))
    ORDER BY id DESC LIMIT %(limit)s
) l
LEFT JOIN payments_payment p ON p.tenant_id = l.tenant_id AND p.id = l.payment_id
GROUP BY 1, 2;
