-- name: groups
-- Lag of every group. Only consumers with messages to read have a due time and are in a small partial index, so that idle ones
-- cost nothing here.
SELECT g.name, q.name, g.mode, g.subscribed_from, g.created_at, w.members, w.partitions, w.lag, w.seconds, w.consumed_at
FROM queueing_group g
JOIN queueing_queue q ON q.tenant_id = g.tenant_id AND q.id = g.queue_id
CROSS JOIN LATERAL (
    SELECT count(DISTINCT c.lease_id) FILTER (WHERE c.due_at > now()) AS members,
        count(*) FILTER (WHERE least(p.last_seq - c.cursor, p.last_seq - p.removed) > 0) AS partitions,
        coalesce(sum(greatest(least(p.last_seq - c.cursor, p.last_seq - p.removed), 0)), 0)::bigint AS lag,
        coalesce(max(greatest(extract(epoch FROM now() - m.created_at) - q.delay_seconds, 0)), 0)::float8 AS seconds,
        max(c.consumed_at) AS consumed_at
    FROM queueing_consumer c
    JOIN queueing_partition p ON p.tenant_id = c.tenant_id AND p.id = c.partition_id
    LEFT JOIN LATERAL (
        SELECT m.created_at FROM queueing_message m
        WHERE m.tenant_id = c.tenant_id AND m.partition_id = c.partition_id AND m.seq > c.cursor
        ORDER BY m.seq LIMIT 1
    ) m ON true
    WHERE c.tenant_id = g.tenant_id AND c.group_id = g.id AND c.due_at IS NOT NULL
) w
WHERE g.tenant_id = %(tenant)s
ORDER BY g.name, q.name

-- name: group_partitions
SELECT q.name, p.name, p.id, CASE WHEN c.due_at > now() THEN c.lease_id END, c.consumed_at, c.consumed,
    greatest(least(p.last_seq - c.cursor, p.last_seq - p.removed), 0),
    CASE WHEN c.cursor < p.last_seq THEN (
        SELECT greatest(extract(epoch FROM now() - m.created_at) - q.delay_seconds, 0)::float8 FROM queueing_message m
        WHERE m.tenant_id = c.tenant_id AND m.partition_id = c.partition_id AND m.seq > c.cursor
        ORDER BY m.seq LIMIT 1
    ) END
FROM queueing_group g
JOIN queueing_queue q ON q.tenant_id = g.tenant_id AND q.id = g.queue_id
JOIN queueing_partition p ON p.tenant_id = q.tenant_id AND p.queue_id = q.id
JOIN queueing_consumer c ON c.tenant_id = p.tenant_id AND c.partition_id = p.id AND c.group_id = g.id
WHERE g.tenant_id = %(tenant)s AND g.name = %(group)s
ORDER BY q.name, p.name
LIMIT %(limit)s OFFSET %(offset)s

-- name: queues_of_group
SELECT q.name FROM queueing_group g
JOIN queueing_queue q ON q.tenant_id = g.tenant_id AND q.id = g.queue_id
WHERE g.tenant_id = %(tenant)s AND g.name = %(group)s AND (%(queue)s::text IS NULL OR q.name = %(queue)s)
ORDER BY q.name

-- name: lock_group
SELECT id, mode, subscribed_from, created_at FROM queueing_group
WHERE tenant_id = %(tenant)s AND queue_id = %(queue)s AND name = %(group)s
FOR UPDATE

-- name: subscribe
UPDATE queueing_group SET mode = 'timestamp', subscribed_from = %(since)s
WHERE tenant_id = %(tenant)s AND name = %(group)s
RETURNING id

-- name: drop_group
DELETE FROM queueing_group WHERE tenant_id = %(tenant)s AND id = %(id)s

-- name: partitions
SELECT id FROM queueing_partition
WHERE tenant_id = %(tenant)s AND queue_id = %(queue)s AND (%(partition)s::text IS NULL OR name = %(partition)s)
ORDER BY id

-- name: drop_consumers
-- Delete a group's consumers in these partitions. Locked in the order in which acks lock them.
WITH held AS MATERIALIZED (
    SELECT c.tenant_id, c.partition_id, c.group_id
    FROM queueing_consumer c
    WHERE c.tenant_id = %(tenant)s AND c.partition_id = ANY(%(partitions)s::bigint[]) AND c.group_id = %(id)s
    ORDER BY c.tenant_id, c.partition_id
    FOR UPDATE
)
DELETE FROM queueing_consumer c USING held h
WHERE c.tenant_id = h.tenant_id AND c.partition_id = h.partition_id AND c.group_id = h.group_id
RETURNING c.partition_id

-- name: forget_ended
-- Delete ended dead letters (replayed or purged) of a group: they would keep their messages from being delivered again, and a
-- seek asks for that.
DELETE FROM queueing_deadmessage d
WHERE d.tenant_id + 0 = %(tenant)s AND d.partition_id = ANY(%(partitions)s::bigint[]) AND d.group_id = %(id)s
    AND d.ended_at IS NOT NULL
RETURNING d.id
