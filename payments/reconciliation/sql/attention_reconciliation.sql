-- name: open
-- Open discrepancies by kind. By the partial index of open ones.
SELECT kind, count(*), min(found_at)
FROM (
    SELECT kind, found_at FROM payments_difference
    WHERE resolution = '' AND (%(tenants)s::bigint[] IS NULL OR tenant_id = ANY(%(tenants)s::bigint[]))
    LIMIT %(limit)s
) d
GROUP BY 1;
