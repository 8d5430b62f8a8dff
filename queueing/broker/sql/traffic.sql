-- name: add
INSERT INTO queueing_traffic AS t (
    tenant_id, queue_id, minute, push_requests, pushed, pop_requests, popped, empty_pops, ack_requests, completed, failed,
    buried, lag_ms, max_lag_ms
)
SELECT tenant_id, queue_id, date_trunc('minute', now()), push_requests, pushed, pop_requests, popped, empty_pops,
    ack_requests, completed, failed, buried, lag_ms, max_lag_ms
FROM unnest(
    %(tenants)s::bigint[], %(queues)s::bigint[], %(push_requests)s::bigint[], %(pushed)s::bigint[],
    %(pop_requests)s::bigint[], %(popped)s::bigint[], %(empty_pops)s::bigint[], %(ack_requests)s::bigint[],
    %(completed)s::bigint[], %(failed)s::bigint[], %(buried)s::bigint[], %(lag_ms)s::bigint[], %(max_lag_ms)s::bigint[]
) AS u (
    tenant_id, queue_id, push_requests, pushed, pop_requests, popped, empty_pops, ack_requests, completed, failed, buried,
    lag_ms, max_lag_ms
)
ON CONFLICT (tenant_id, queue_id, minute) DO UPDATE SET
    push_requests = t.push_requests + excluded.push_requests,
    pushed = t.pushed + excluded.pushed,
    pop_requests = t.pop_requests + excluded.pop_requests,
    popped = t.popped + excluded.popped,
    empty_pops = t.empty_pops + excluded.empty_pops,
    ack_requests = t.ack_requests + excluded.ack_requests,
    completed = t.completed + excluded.completed,
    failed = t.failed + excluded.failed,
    buried = t.buried + excluded.buried,
    lag_ms = t.lag_ms + excluded.lag_ms,
    max_lag_ms = greatest(t.max_lag_ms, excluded.max_lag_ms)
