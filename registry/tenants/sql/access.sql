-- name: key
-- The tenant of a key that is neither revoked nor expired; whether to record the use of the key; the operations that the web
-- process carries out inline for this tenant.
SELECT t.id, t.slug, t.currency, t.mode, t.max_amount, k.scopes::text, k.prefix, k.rate_limit, t.status,
    k.last_used_at IS NULL OR k.last_used_at < now() - interval '1 minute', t.blocked,
    ARRAY(
        SELECT split_part(f.name, '.', 2) FROM registry_flag f
        WHERE f.name LIKE 'inline.%%' AND coalesce(f.everyone, EXISTS (
            SELECT FROM registry_flag_tenants n WHERE n.flag_id = f.id AND n.tenant_id = t.id
        ))
    )::text[]
FROM registry_apikey k JOIN registry_tenant t ON t.id = k.tenant_id
WHERE k.prefix = %(prefix)s AND k.digest = %(digest)s AND k.revoked_at IS NULL
  AND (k.expires_at IS NULL OR k.expires_at > now());

-- name: open
-- The open tenant, for requests without a key; same columns as `key`.
SELECT t.id, t.slug, t.currency, t.mode, t.max_amount, '["read", "write"]', '', '', t.status, false, t.blocked,
    ARRAY(
        SELECT split_part(f.name, '.', 2) FROM registry_flag f
        WHERE f.name LIKE 'inline.%%' AND coalesce(f.everyone, EXISTS (
            SELECT FROM registry_flag_tenants n WHERE n.flag_id = f.id AND n.tenant_id = t.id
        ))
    )::text[]
FROM registry_tenant t WHERE t.slug = %(slug)s AND t.open;

-- name: used
UPDATE registry_apikey SET last_used_at = now() WHERE prefix = %(prefix)s;

-- name: tenants
SELECT id FROM registry_tenant ORDER BY id;
