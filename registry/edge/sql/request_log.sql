-- name: write
-- Entries of several tenants. An id that exists, by a chance of one in a million, is left out.
INSERT INTO registry_apirequest (tenant_id, id, at, key, method, path, status, code, duration, request_id)
SELECT tenant_id, id, to_timestamp((id >> 10) / 1000000.0), key, method, path, status::smallint, code, duration::integer,
    request_id
FROM unnest(%(tenant_id)s, %(id)s, %(key)s, %(method)s, %(path)s, %(status)s, %(code)s, %(duration)s, %(request_id)s)
    AS new (tenant_id, id, key, method, path, status, code, duration, request_id)
ON CONFLICT DO NOTHING;

-- name: tenants
-- The tenants that have entries: one step of the primary key for each, however many entries it has.
WITH RECURSIVE found AS (
    (SELECT tenant_id FROM registry_apirequest ORDER BY tenant_id LIMIT 1)
    UNION ALL
    SELECT (SELECT r.tenant_id FROM registry_apirequest r WHERE r.tenant_id > f.tenant_id ORDER BY r.tenant_id LIMIT 1)
    FROM found f WHERE f.tenant_id IS NOT NULL
)
SELECT tenant_id FROM found WHERE tenant_id IS NOT NULL;

-- name: expire
-- Delete the oldest entries of a tenant, at most :limit, by a range of the primary key.
WITH old AS MATERIALIZED (
    SELECT id FROM registry_apirequest WHERE tenant_id = %(tenant)s AND id < %(before)s ORDER BY id LIMIT %(limit)s
)
DELETE FROM registry_apirequest
WHERE tenant_id = %(tenant)s AND id <= (SELECT max(id) FROM old) AND id < %(before)s
RETURNING 1;
