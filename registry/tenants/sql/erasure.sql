-- name: close
-- Close the tenant and revoke its keys: it accepts nothing new.
WITH keys AS (
    UPDATE registry_apikey SET revoked_at = now() WHERE tenant_id = %(tenant)s AND revoked_at IS NULL
)
UPDATE registry_tenant SET status = 'closed', open = false WHERE id = %(tenant)s AND (status <> 'closed' OR open)
RETURNING id;

-- name: people
-- Accounts whose only membership is of this tenant, except operators of the service.
UPDATE auth_user u
SET username = 'erased-' || u.id, first_name = '', last_name = '', email = '', password = '!', is_active = false, is_staff = false
WHERE u.id IN (SELECT user_id FROM registry_membership WHERE tenant_id = %(tenant)s)
  AND u.id NOT IN (SELECT user_id FROM registry_membership WHERE tenant_id <> %(tenant)s)
  AND NOT u.is_superuser AND u.username <> 'erased-' || u.id
RETURNING u.id;

-- name: part
-- Delete the memberships last: they identify the accounts to blank.
DELETE FROM registry_membership WHERE tenant_id = %(tenant)s RETURNING id;

-- name: page
-- Blank the next page of rows of one table, in key order. Returns each key and whether its row changed: rows that are blank
-- already are not written again.
WITH page AS MATERIALIZED (
    SELECT {key} FROM {table} t WHERE {where} ORDER BY {key} LIMIT %(limit)s
), blanked AS (
    UPDATE {table} t SET {sets} FROM page WHERE {sought}
    RETURNING {key}
)
SELECT {key}, (b.{first} IS NOT NULL)::int
FROM page t LEFT JOIN blanked b USING ({names}) ORDER BY {key};
