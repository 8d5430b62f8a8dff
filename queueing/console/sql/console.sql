-- name: partitions
-- A page of a queue's partitions with the places of its groups; where most is to be read, first.
WITH place AS MATERIALIZED (
    SELECT p.id, p.name, p.last_seq, p.removed, p.last_at, coalesce((
        SELECT max(greatest(least(p.last_seq - c.cursor, p.last_seq - p.removed), 0)) FROM queueing_consumer c
        WHERE c.tenant_id = p.tenant_id AND c.partition_id = p.id
    ), p.last_seq - p.removed)::bigint AS waiting
    FROM queueing_partition p
    WHERE p.tenant_id = %(tenant)s AND p.queue_id = %(queue)s
        AND (%(name)s::text = '' OR strpos(p.name, %(name)s) > 0)
    ORDER BY waiting DESC, p.name
    LIMIT %(limit)s OFFSET %(offset)s
)
SELECT l.id, l.name, l.last_seq - l.removed, l.waiting, CASE WHEN l.last_seq > 0 THEN l.last_at END, g.name,
    greatest(least(l.last_seq - c.cursor, l.last_seq - l.removed), 0), c.lease_id IS NOT NULL AND c.due_at > now(),
    CASE WHEN c.lease_id IS NOT NULL THEN c.due_at END, c.attempt
FROM place l
LEFT JOIN queueing_consumer c ON c.tenant_id = %(tenant)s AND c.partition_id = l.id
LEFT JOIN queueing_group g ON g.id = c.group_id AND g.tenant_id + 0 = c.tenant_id
ORDER BY l.waiting DESC, l.name, g.name

-- name: count_partitions
SELECT count(*) FROM queueing_partition p
WHERE p.tenant_id = %(tenant)s AND p.queue_id = %(queue)s AND (%(name)s::text = '' OR strpos(p.name, %(name)s) > 0)

-- name: partition
SELECT q.name, p.name, p.last_seq, p.removed, p.created_at, CASE WHEN p.last_seq > 0 THEN p.last_at END
FROM queueing_partition p
JOIN queueing_queue q ON q.id = p.queue_id AND q.tenant_id + 0 = p.tenant_id
WHERE p.id = %(partition)s AND p.tenant_id + 0 = %(tenant)s

-- name: places
-- How far each group has read a partition.
SELECT g.name, c.cursor, c.delivered, c.lease_id, c.lease_id IS NOT NULL AND c.due_at > now(),
    CASE WHEN c.lease_id IS NOT NULL THEN c.due_at END, c.attempt, c.consumed, c.consumed_at
FROM queueing_consumer c
JOIN queueing_group g ON g.id = c.group_id AND g.tenant_id + 0 = c.tenant_id
WHERE c.tenant_id = %(tenant)s AND c.partition_id = %(partition)s
ORDER BY g.name

-- name: messages
-- A page of a partition's messages, the newest first, between two numbers: those outside cannot be in the wanted state.
SELECT m.seq, m.transaction_id, m.created_at, m.key_id IS NOT NULL, octet_length(m.payload), substr(m.payload, 1, %(bytes)s::int),
    EXISTS (
        SELECT FROM queueing_deadmessage d WHERE d.partition_id = m.partition_id AND d.tenant_id + 0 = m.tenant_id
            AND d.seq = m.seq AND d.ended_at IS NULL
    )
FROM queueing_message m
WHERE m.tenant_id = %(tenant)s AND m.partition_id = %(partition)s AND m.seq > %(after)s AND m.seq <= %(through)s
    AND NOT (m.seq > %(skip_after)s AND m.seq <= %(skip_through)s)
ORDER BY m.seq DESC LIMIT %(limit)s

-- name: message
SELECT m.id, m.transaction_id, m.payload, m.key_id, m.trace_id, m.producer, m.created_at, p.name, q.name
FROM queueing_message m
JOIN queueing_partition p ON p.id = m.partition_id AND p.tenant_id + 0 = m.tenant_id
JOIN queueing_queue q ON q.id = p.queue_id AND q.tenant_id + 0 = p.tenant_id
WHERE m.tenant_id = %(tenant)s AND m.partition_id = %(partition)s AND m.seq = %(seq)s

-- name: dead_of_message
SELECT d.id, d.group_name, d.error, d.attempts, d.failed_at, d.ended_at FROM queueing_deadmessage d
WHERE d.partition_id = %(partition)s AND d.tenant_id + 0 = %(tenant)s AND d.seq = %(seq)s
ORDER BY d.group_name

-- name: options
SELECT to_jsonb(q)::text FROM queueing_queue q WHERE q.tenant_id = %(tenant)s AND q.name = %(queue)s

-- name: open_among
SELECT d.id, d.error FROM queueing_deadmessage d
JOIN queueing_queue q ON q.tenant_id = d.tenant_id AND q.id = d.queue_id
WHERE d.tenant_id = %(tenant)s AND d.id = ANY(%(ids)s::bigint[]) AND q.name = %(queue)s AND d.ended_at IS NULL
ORDER BY d.id
