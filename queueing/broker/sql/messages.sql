-- name: messages
-- Newest messages of the thousand partitions that were pushed to last. Numbers grow with time, so reading the end of each is
-- enough.
WITH recent AS MATERIALIZED (
    SELECT p.tenant_id, p.id, p.name, q.id AS queue_id, q.name AS queue, q.namespace, q.task, q.priority, c.*
    FROM queueing_queue q
    JOIN queueing_partition p ON p.tenant_id = q.tenant_id AND p.queue_id = q.id
    CROSS JOIN LATERAL (
        SELECT min(k.cursor) AS done, min(k.cursor) FILTER (WHERE g.name = '__QUEUE_MODE__') AS own,
            coalesce(array_agg(k.cursor) FILTER (WHERE g.name <> '__QUEUE_MODE__'), '{}') AS others,
            min(k.cursor) FILTER (WHERE k.lease_id IS NOT NULL AND k.due_at > now()) AS leased_after,
            max(k.delivered) FILTER (WHERE k.lease_id IS NOT NULL AND k.due_at > now()) AS leased_to,
            max(k.due_at) FILTER (WHERE k.lease_id IS NOT NULL AND k.due_at > now()) AS lease_end
        FROM queueing_consumer k
        JOIN queueing_group g ON g.tenant_id = k.tenant_id AND g.id = k.group_id
        WHERE k.tenant_id = p.tenant_id AND k.partition_id = p.id
    ) c
    WHERE q.tenant_id = %(tenant)s AND (%(queue)s::text = '' OR q.name = %(queue)s)
        AND (%(partition)s::text = '' OR p.name = %(partition)s)
        AND (%(namespace)s::text = '' OR q.namespace = %(namespace)s) AND (%(task)s::text = '' OR q.task = %(task)s)
        AND p.last_seq > p.removed AND p.last_at >= %(from)s::timestamptz
    ORDER BY p.last_at DESC LIMIT 1000
)
SELECT m.id, m.transaction_id, l.id, l.queue, l.name, l.namespace, l.task, m.status, l.own >= m.seq, (
        SELECT count(*) FROM unnest(l.others) AS o (cursor) WHERE o.cursor >= m.seq
    ), cardinality(l.others), m.trace_id, m.producer, l.priority, m.created_at,
    CASE WHEN m.status = 'processing' THEN l.lease_end END
FROM recent l
CROSS JOIN LATERAL (
    SELECT * FROM (
        SELECT r.*, CASE
            WHEN EXISTS (
                SELECT FROM queueing_deadmessage d WHERE d.tenant_id = l.tenant_id AND d.partition_id = l.id
                    AND d.seq = r.seq AND d.ended_at IS NULL
            ) THEN 'dead_letter'
            WHEN l.done >= r.seq THEN 'completed'
            WHEN l.leased_after < r.seq AND r.seq <= l.leased_to THEN 'processing'
            ELSE 'pending' END AS status
        FROM queueing_message r
        WHERE r.tenant_id = l.tenant_id AND r.partition_id = l.id
            AND r.created_at >= %(from)s::timestamptz AND r.created_at <= %(to)s::timestamptz
    ) s
    WHERE %(status)s::text = '' OR s.status = %(status)s
    ORDER BY s.seq DESC LIMIT %(limit)s + %(offset)s
) m
ORDER BY m.created_at DESC, l.id, m.seq DESC LIMIT %(limit)s OFFSET %(offset)s

-- name: modes
SELECT coalesce(bool_or(g.name = '__QUEUE_MODE__'), false), count(DISTINCT g.name) FILTER (WHERE g.name <> '__QUEUE_MODE__')
FROM queueing_group g
WHERE g.tenant_id = %(tenant)s AND (%(queue)s::text = '' OR g.queue_id = (
    SELECT q.id FROM queueing_queue q WHERE q.tenant_id = %(tenant)s AND q.name = %(queue)s
))

-- name: message
SELECT m.seq, m.id, m.payload, m.key_id, m.trace_id, m.producer, m.created_at, p.name, to_jsonb(q)::text, q.name
FROM queueing_message m
JOIN queueing_partition p ON p.id = m.partition_id AND p.tenant_id + 0 = m.tenant_id
JOIN queueing_queue q ON q.id = p.queue_id AND q.tenant_id + 0 = p.tenant_id
WHERE m.transaction_id = %(transaction)s AND m.partition_id = %(partition)s AND m.tenant_id + 0 = %(tenant)s

-- name: groups_of_message
SELECT g.id, g.name, c.cursor, c.delivered, c.lease_id IS NOT NULL AND c.due_at > now(),
    CASE WHEN c.lease_id IS NOT NULL THEN c.due_at END, c.attempt, c.consumed_at, d.id, d.error, d.attempts, d.ended_at IS NULL
FROM queueing_consumer c
JOIN queueing_group g ON g.id = c.group_id AND g.tenant_id + 0 = c.tenant_id
LEFT JOIN queueing_deadmessage d ON d.partition_id = c.partition_id AND d.group_id = c.group_id AND d.seq = %(seq)s
    AND d.tenant_id + 0 = c.tenant_id
WHERE c.tenant_id = %(tenant)s AND c.partition_id = %(partition)s
ORDER BY g.name
