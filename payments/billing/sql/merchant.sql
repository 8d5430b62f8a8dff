-- name: unpaid
-- Subscriptions with a step of dunning; not of sandboxes whose plan was never paid.
SELECT t.slug, s.dunning, s.past_due_since
FROM payments_subscription s JOIN registry_tenant t ON t.id = s.tenant_id
WHERE s.dunning <> 'none' AND NOT (t.mode = 'sandbox' AND s.status = 'unpaid')
  AND (%(tenants)s::bigint[] IS NULL OR s.tenant_id = ANY(%(tenants)s::bigint[]))
ORDER BY s.past_due_since LIMIT %(limit)s;

-- name: go_live
-- Of sandboxes, the checks before going live that miss something and that a look at our tables can tell. An open tenant is a demo.
SELECT m.names, t.created_at
FROM registry_tenant t
CROSS JOIN LATERAL (
    SELECT array_agg(c.name ORDER BY c.number) AS names
    FROM (VALUES
        (1, 'owner', EXISTS (
            SELECT FROM registry_membership m JOIN auth_user u ON u.id = m.user_id
            WHERE m.tenant_id = t.id AND m.role = 'owner' AND u.is_active AND u.password <> '' AND u.password NOT LIKE '!%%'
        )),
        (2, 'plan', CASE
            WHEN EXISTS (SELECT FROM payments_subscription s WHERE s.tenant_id = t.id)
                THEN EXISTS (SELECT FROM payments_subscription s WHERE s.tenant_id = t.id AND s.dunning = 'none')
            ELSE NOT EXISTS (SELECT FROM payments_plan p WHERE p.offered) END),
        (3, 'processor', EXISTS (
            SELECT FROM payments_processor p WHERE p.tenant_id = t.id AND p.enabled AND p.kind <> 'sandbox'
        ))
    ) AS c (number, name, ok)
    WHERE NOT c.ok
) m
WHERE t.id = ANY(%(tenants)s::bigint[]) AND t.mode = 'sandbox' AND NOT t.open AND m.names IS NOT NULL;
