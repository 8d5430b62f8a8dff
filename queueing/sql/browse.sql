-- name: partitions
-- One row per partition: what is there, what the slowest group has not done, what is leased. Sums over partitions and
-- consumers, never a count over messages.
SELECT q.id, q.name, q.namespace, q.task, q.created_at, p.id, p.name, p.created_at, p.last_at,
    coalesce(s.total, 0)::bigint, coalesce(s.waiting, 0)::bigint, least(coalesce(s.waiting, 0), coalesce(c.leased, 0))::bigint,
    coalesce(c.failed, 0)::bigint
FROM queueing_queue q
LEFT JOIN queueing_partition p ON p.tenant_id = q.tenant_id AND p.queue_id = q.id
LEFT JOIN LATERAL (
    SELECT min(k.cursor) AS done, count(*) FILTER (WHERE k.attempt > 0) AS failed,
        max(k.delivered - k.cursor) FILTER (WHERE k.lease_id IS NOT NULL AND k.due_at > now()) AS leased
    FROM queueing_consumer k WHERE k.tenant_id = p.tenant_id AND k.partition_id = p.id
) c ON true
LEFT JOIN LATERAL (
    SELECT p.last_seq - p.removed AS total, least(p.last_seq - p.removed, p.last_seq - coalesce(c.done, 0)) AS waiting
) s ON true
WHERE q.tenant_id = %(tenant)s AND (%(queue)s::text = '' OR q.name = %(queue)s)
    AND (%(namespace)s::text = '' OR q.namespace = %(namespace)s) AND (%(task)s::text = '' OR q.task = %(task)s)
ORDER BY q.name, p.name

-- name: queues
-- The same, added up by queue.
SELECT q.id, q.name, q.namespace, q.task, q.created_at, t.partitions, t.total, t.waiting, t.leased, t.failed, (
    SELECT count(*) FROM queueing_deadmessage d WHERE d.tenant_id = q.tenant_id AND d.queue_id = q.id AND d.ended_at IS NULL
)
FROM queueing_queue q
CROSS JOIN LATERAL (
    SELECT count(*) AS partitions, coalesce(sum(s.total), 0)::bigint AS total, coalesce(sum(s.waiting), 0)::bigint AS waiting,
        coalesce(sum(least(s.waiting, coalesce(c.leased, 0))), 0)::bigint AS leased, coalesce(sum(c.failed), 0)::bigint AS failed
    FROM queueing_partition p
    CROSS JOIN LATERAL (
        SELECT min(k.cursor) AS done, count(*) FILTER (WHERE k.attempt > 0) AS failed,
            max(k.delivered - k.cursor) FILTER (WHERE k.lease_id IS NOT NULL AND k.due_at > now()) AS leased
        FROM queueing_consumer k WHERE k.tenant_id = p.tenant_id AND k.partition_id = p.id
    ) c
    CROSS JOIN LATERAL (
        SELECT p.last_seq - p.removed AS total, least(p.last_seq - p.removed, p.last_seq - coalesce(c.done, 0)) AS waiting
    ) s
    WHERE p.tenant_id = q.tenant_id AND p.queue_id = q.id
) t
WHERE q.tenant_id = %(tenant)s AND (%(queue)s::text = '' OR q.name = %(queue)s)
    AND (%(namespace)s::text = '' OR q.namespace = %(namespace)s) AND (%(task)s::text = '' OR q.task = %(task)s)
ORDER BY q.name

-- name: ages
-- Oldest and newest message of each partition.
SELECT u.p, o.at, n.at
FROM unnest(%(partitions)s::bigint[]) AS u (p)
LEFT JOIN LATERAL (
    SELECT m.created_at AS at FROM queueing_message m
    WHERE m.tenant_id = %(tenant)s AND m.partition_id = u.p ORDER BY m.seq LIMIT 1
) o ON true
LEFT JOIN LATERAL (
    SELECT m.created_at AS at FROM queueing_message m
    WHERE m.tenant_id = %(tenant)s AND m.partition_id = u.p ORDER BY m.seq DESC LIMIT 1
) n ON true

-- name: dead_by_partition
SELECT partition_id, count(*) FROM queueing_deadmessage
WHERE tenant_id = %(tenant)s AND queue_id = %(queue)s AND ended_at IS NULL GROUP BY 1

-- name: throughput
-- Per second over the last five minutes that are complete.
SELECT coalesce(sum(pushed), 0)::float8 / 300, coalesce(sum(completed), 0)::float8 / 300
FROM queueing_queue q
JOIN queueing_traffic t ON t.tenant_id = q.tenant_id AND t.queue_id = q.id
WHERE q.tenant_id = %(tenant)s AND t.minute >= date_trunc('minute', now()) - interval '5 minutes'
    AND t.minute < date_trunc('minute', now())

-- name: lags
-- Per partition with something to read: seconds that the oldest message waits for the slowest group, and how many wait.
SELECT extract(epoch FROM now() - (
        SELECT m.created_at FROM queueing_message m
        WHERE m.tenant_id = p.tenant_id AND m.partition_id = p.id AND m.seq > c.done ORDER BY m.seq LIMIT 1
    ))::float8, least(p.last_seq - p.removed, p.last_seq - c.done)
FROM queueing_queue q
JOIN queueing_partition p ON p.tenant_id = q.tenant_id AND p.queue_id = q.id AND p.last_seq > p.removed
CROSS JOIN LATERAL (
    SELECT coalesce(min(k.cursor), 0) AS done FROM queueing_consumer k
    WHERE k.tenant_id = p.tenant_id AND k.partition_id = p.id
) c
WHERE q.tenant_id = %(tenant)s AND p.last_seq > c.done

-- name: depth
-- For one group: a partition it has no place in waits whole.
SELECT count(p.id), count(*) FILTER (WHERE w.waiting > 0), coalesce(sum(w.waiting), 0)::bigint
FROM queueing_partition p
CROSS JOIN LATERAL (
    SELECT least(p.last_seq - p.removed, p.last_seq - coalesce((
        SELECT c.cursor FROM queueing_consumer c
        JOIN queueing_group g ON g.tenant_id = c.tenant_id AND g.id = c.group_id
        WHERE c.tenant_id = p.tenant_id AND c.partition_id = p.id AND g.name = %(group)s
    ), 0)) AS waiting
) w
WHERE p.tenant_id = %(tenant)s AND p.queue_id = %(queue)s

-- name: messages
-- Newest first, within the partitions that were pushed to last. Numbers follow time, so the newest of each are enough.
WITH place AS MATERIALIZED (
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
FROM place l
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
JOIN queueing_partition p ON p.tenant_id = m.tenant_id AND p.id = m.partition_id
JOIN queueing_queue q ON q.tenant_id = p.tenant_id AND q.id = p.queue_id
WHERE m.tenant_id = %(tenant)s AND m.partition_id = %(partition)s AND m.transaction_id = %(transaction)s

-- name: groups_of_message
SELECT g.id, g.name, c.cursor, c.delivered, c.lease_id IS NOT NULL AND c.due_at > now(),
    CASE WHEN c.lease_id IS NOT NULL THEN c.due_at END, c.attempt, c.consumed_at, d.id, d.error, d.attempts, d.ended_at IS NULL
FROM queueing_consumer c
JOIN queueing_group g ON g.tenant_id = c.tenant_id AND g.id = c.group_id
LEFT JOIN queueing_deadmessage d ON d.tenant_id = c.tenant_id AND d.partition_id = c.partition_id AND d.group_id = c.group_id
    AND d.seq = %(seq)s
WHERE c.tenant_id = %(tenant)s AND c.partition_id = %(partition)s
ORDER BY g.name
