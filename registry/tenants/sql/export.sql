-- name: rows
-- A tenant's rows of one table, each as JSON text. Table, columns, joins and condition come from the models and from
-- export.TABLES.
SELECT ({row})::text FROM {table} t {joins} WHERE {where} ORDER BY {order};

-- name: members
-- Condition: the account `t` is a member of the tenant.
t.id IN (SELECT user_id FROM registry_membership WHERE tenant_id = %(tenant)s);
