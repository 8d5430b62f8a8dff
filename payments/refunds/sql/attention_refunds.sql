-- name: stopped
-- Refunds that workers gave up, by currency, and the tenant of the oldest. By the index of open refunds.
SELECT currency, count(*), sum(amount)::bigint, min(stopped_at),
    (SELECT slug FROM registry_tenant WHERE id = (array_agg(r.tenant_id ORDER BY r.stopped_at))[1])
FROM (
    SELECT currency, amount, stopped_at, tenant_id FROM payments_refund
    WHERE closed IS NULL AND stopped_at IS NOT NULL AND (%(tenants)s::bigint[] IS NULL OR tenant_id = ANY(%(tenants)s::bigint[]))
    LIMIT %(limit)s
) r
GROUP BY 1;

-- name: disputes
-- Disputes that want an answer, by currency: how many, their amounts, the earliest deadline, how many are due soon, the oldest and its tenant.
SELECT currency, count(*), sum(amount)::bigint, min(due_by),
    count(*) FILTER (WHERE due_by < now() + make_interval(secs => %(soon)s)), min(opened_at),
    (SELECT slug FROM registry_tenant WHERE id = (array_agg(d.tenant_id ORDER BY d.opened_at))[1])
FROM (
    SELECT currency, amount, due_by, opened_at, tenant_id FROM payments_dispute
    WHERE closed_at IS NULL AND status = ANY(%(statuses)s::text[]) AND (%(tenants)s::bigint[] IS NULL OR tenant_id = ANY(%(tenants)s::bigint[]))
    LIMIT %(limit)s
) d
GROUP BY 1;
