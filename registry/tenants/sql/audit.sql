-- name: chains
-- Every chain that has a head, links, or entries without a link.
SELECT chain FROM registry_audithead
UNION SELECT chain FROM registry_auditlink
UNION SELECT coalesce(e.tenant_id, 0) FROM registry_auditentry e
    WHERE NOT EXISTS (SELECT FROM registry_auditlink l WHERE l.entry_id = e.id AND l.chain = coalesce(e.tenant_id, 0))
ORDER BY 1;

-- name: head
SELECT position, digest FROM registry_audithead WHERE chain = %(chain)s;

-- name: links
-- The next links of a chain with the content that their digests cover, or NULL where the entry is gone. The content repeats
-- the expression of migrations/sql/audit_chain.sql: a change of the function there changes no verification.
SELECT l.position, l.entry_id, l.digest, coalesce(e.tenant_id, 0),
    CASE WHEN e.id IS NOT NULL THEN jsonb_build_array(e.id, e.tenant_id, e.actor, e.action, e.target, e.rows, e.reason,
        e.detail, (extract(epoch FROM e.at) * 1000000)::bigint)::text END
FROM registry_auditlink l LEFT JOIN registry_auditentry e ON e.id = l.entry_id
WHERE l.chain = %(chain)s AND l.position > %(after)s
ORDER BY l.position
LIMIT %(limit)s;

-- name: unlinked
-- An entry that bypassed the trigger, or whose link was moved to another chain.
SELECT min(id) FROM (
    SELECT e.id FROM registry_auditentry e
    WHERE e.tenant_id = %(chain)s::bigint
      AND NOT EXISTS (SELECT FROM registry_auditlink l WHERE l.entry_id = e.id AND l.chain = %(chain)s::bigint)
    UNION ALL
    SELECT e.id FROM registry_auditentry e
    WHERE %(chain)s::bigint = 0 AND e.tenant_id IS NULL  -- two halves, so that both use the index on tenants
      AND NOT EXISTS (SELECT FROM registry_auditlink l WHERE l.entry_id = e.id AND l.chain = 0)
) AS strays;
