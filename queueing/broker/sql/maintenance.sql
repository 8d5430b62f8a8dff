-- name: maintenance
SELECT tenant_id, push, pop FROM queueing_maintenance

-- name: set_maintenance
INSERT INTO queueing_maintenance AS m (tenant_id, push, pop)
VALUES (%(tenant)s, coalesce(%(push)s::boolean, false), coalesce(%(pop)s::boolean, false))
ON CONFLICT (tenant_id) DO UPDATE SET
    push = coalesce(%(push)s::boolean, m.push), pop = coalesce(%(pop)s::boolean, m.pop), changed_at = now()
RETURNING push, pop
