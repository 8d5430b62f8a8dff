-- name: rows
-- A tenant's rows of one table, each as the text of a JSON object. Table, columns, joins and condition come from the models
-- and from export.TABLES.
SELECT ({row})::text FROM {table} t {joins} WHERE {where} ORDER BY {order};

-- name: members
-- A condition on an account `t`: it is a member of the tenant.
t.id IN (SELECT user_id FROM registry_membership WHERE tenant_id = %(tenant)s);
