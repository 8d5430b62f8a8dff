-- name: partitions
-- One row per partition: messages stored, not completed by the slowest group, and leased. Computed from the numbers that
-- partitions and consumers carry; messages are never counted.
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
-- The figures of `partitions`, summed by queue.
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
-- Messages per second over the last five complete minutes.
SELECT coalesce(sum(pushed), 0)::float8 / 300, coalesce(sum(completed), 0)::float8 / 300
FROM queueing_queue q
JOIN queueing_traffic t ON t.tenant_id = q.tenant_id AND t.queue_id = q.id
WHERE q.tenant_id = %(tenant)s AND t.minute >= date_trunc('minute', now()) - interval '5 minutes'
    AND t.minute < date_trunc('minute', now())

-- name: lags
-- Lag of the slowest group per partition that has messages to read: seconds since the oldest message, and number of messages.
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
-- Number of messages that one group has not read. Where it has no consumer, all messages of the partition count.
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
