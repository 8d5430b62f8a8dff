-- name: named
-- Payments by name, where they are due and in nobody's hands. By the unique index; what somebody else is locking is his.
SELECT {columns}
FROM unnest(%(tenant)b::bigint[], %(correlation)b::uuid[]) AS t (tenant_id, correlation_id)
CROSS JOIN LATERAL (
    SELECT * FROM payments_payment p
    WHERE p.correlation_id = t.correlation_id AND p.tenant_id + 0 = t.tenant_id AND p.status IN ('queued', 'processing', 'uncertain')
      AND p.run_at <= now() AND (p.leased_until IS NULL OR p.leased_until < now())
    FOR UPDATE SKIP LOCKED
) p
{joins};

-- name: heard
-- How long ago a worker of payments was heard of last; none: never, or all have signed off.
SELECT extract(epoch FROM now() - max(heartbeat_at))::float8 FROM queueing_worker WHERE queue = 'payments';
