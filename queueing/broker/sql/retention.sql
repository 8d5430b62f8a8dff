-- name: aged
-- Partitions whose oldest message exceeds the queue's retention or time to live. Reads one message of each.
SELECT p.tenant_id, p.id, q.age
FROM (
    SELECT tenant_id, id, least(
        CASE WHEN retention_enabled AND retention_seconds > 0 THEN retention_seconds END,
        CASE WHEN ttl_seconds > 0 THEN ttl_seconds END
    ) AS age
    FROM queueing_queue WHERE retention_enabled AND retention_seconds > 0 OR ttl_seconds > 0
) q
JOIN queueing_partition p ON p.tenant_id = q.tenant_id AND p.queue_id = q.id AND p.last_seq > p.removed
CROSS JOIN LATERAL (
    SELECT m.created_at FROM queueing_message m
    WHERE m.tenant_id = p.tenant_id AND m.partition_id = p.id ORDER BY m.seq LIMIT 1
) m
WHERE m.created_at < now() - q.age * interval '1 second' AND p.id > %(after)s
ORDER BY p.id LIMIT %(limit)s

-- name: completed
-- Partitions whose oldest message is completed by every group and exceeds the retention of completed messages.
SELECT p.tenant_id, p.id, q.completed_retention_seconds
FROM queueing_queue q
JOIN queueing_partition p ON p.tenant_id = q.tenant_id AND p.queue_id = q.id AND p.last_seq > p.removed
CROSS JOIN LATERAL (
    SELECT m.seq, m.created_at FROM queueing_message m
    WHERE m.tenant_id = p.tenant_id AND m.partition_id = p.id ORDER BY m.seq LIMIT 1
) m
WHERE q.retention_enabled AND q.completed_retention_seconds > 0 AND p.id > %(after)s
    AND m.created_at < now() - q.completed_retention_seconds * interval '1 second'
    AND m.seq <= (SELECT min(c.cursor) FROM queueing_consumer c WHERE c.tenant_id = p.tenant_id AND c.partition_id = p.id)
ORDER BY p.id LIMIT %(limit)s

-- name: waited
-- Partitions whose oldest message that some group has not completed exceeds the maximum waiting time.
SELECT p.tenant_id, p.id, q.max_wait_seconds
FROM queueing_queue q
JOIN queueing_partition p ON p.tenant_id = q.tenant_id AND p.queue_id = q.id AND p.last_seq > p.removed
CROSS JOIN LATERAL (
    SELECT m.created_at FROM queueing_message m
    WHERE m.tenant_id = p.tenant_id AND m.partition_id = p.id AND m.seq > coalesce((
        SELECT min(c.cursor) FROM queueing_consumer c WHERE c.tenant_id = p.tenant_id AND c.partition_id = p.id
    ), 0)
    ORDER BY m.seq LIMIT 1
) m
WHERE q.max_wait_seconds > 0 AND p.id > %(after)s AND m.created_at < now() - q.max_wait_seconds * interval '1 second'
ORDER BY p.id LIMIT %(limit)s

-- name: slowest_cursor
-- NULL where the queue has no group.
SELECT min(cursor) FROM queueing_consumer WHERE tenant_id = %(tenant)s AND partition_id = %(partition)s

-- name: end_of_slice
-- Number of the last message of the next slice that is older than `age`, after `after` and up to `through`. Numbers grow with
-- time, so that at most one slice of younger messages is read.
SELECT max(s.seq) FROM (
    SELECT m.seq, m.created_at FROM queueing_message m
    WHERE m.tenant_id = %(tenant)s AND m.partition_id = %(partition)s AND m.seq > %(after)s AND m.seq <= %(through)s
    ORDER BY m.seq LIMIT %(limit)s
) s
WHERE s.created_at < now() - %(age)s * interval '1 second'

-- name: count_behind
SELECT count(*) FROM queueing_consumer
WHERE tenant_id = %(tenant)s AND partition_id = %(partition)s AND cursor < %(through)s

-- name: lock_behind
-- Lock the consumers that have not completed all messages up to there. SKIP LOCKED: one that a pop or an ack has locked is left
-- out, and the caller compares the count.
SELECT group_id, cursor, lease_id IS NOT NULL AND due_at > clock_timestamp() FROM queueing_consumer
WHERE tenant_id = %(tenant)s AND partition_id = %(partition)s AND cursor < %(through)s
ORDER BY group_id FOR UPDATE SKIP LOCKED

-- name: remove
WITH gone AS (
    DELETE FROM queueing_message
    WHERE tenant_id = %(tenant)s AND partition_id = %(partition)s AND seq > %(after)s AND seq <= %(through)s
    RETURNING seq
), counted AS (
    UPDATE queueing_partition SET removed = removed + (SELECT count(*) FROM gone)
    WHERE id = %(partition)s AND tenant_id + 0 = %(tenant)s
)
SELECT count(*) FROM gone

-- name: skip_removed
-- Move the cursors of consumers without a lease past messages that were deleted.
UPDATE queueing_consumer SET cursor = %(through)s, attempt = 0, lease_id = NULL, due_at = '-infinity'
WHERE tenant_id = %(tenant)s AND partition_id = %(partition)s AND group_id = ANY(%(groups)s::bigint[])

-- name: dropped
-- Partitions of dropped queues.
SELECT p.tenant_id, p.id FROM registry_tenant t
CROSS JOIN LATERAL (
    SELECT p.tenant_id, p.id FROM queueing_partition p WHERE p.tenant_id = t.id AND p.queue_id IS NULL LIMIT %(limit)s
) p
LIMIT %(limit)s

-- name: remove_slice
DELETE FROM queueing_message WHERE tenant_id = %(tenant)s AND partition_id = %(partition)s AND seq IN (
    SELECT m.seq FROM queueing_message m WHERE m.tenant_id = %(tenant)s AND m.partition_id = %(partition)s
    ORDER BY m.seq LIMIT %(limit)s
) RETURNING seq

-- name: remove_dead_letters
-- Delete the dead letters of a dropped queue's partition: nobody could list or replay them.
DELETE FROM queueing_deadmessage WHERE tenant_id = %(tenant)s AND id IN (
    SELECT d.id FROM queueing_deadmessage d WHERE d.partition_id = %(partition)s AND d.tenant_id + 0 = %(tenant)s LIMIT %(limit)s
) RETURNING id

-- name: remove_partition
DELETE FROM queueing_partition WHERE id = %(partition)s AND tenant_id + 0 = %(tenant)s AND queue_id IS NULL

-- name: empty_partitions
-- Delete partitions without messages that got none for `days` days; a push creates one anew. A partition with dead letters
-- keeps its groups' cursors.
WITH old AS (
    SELECT p.tenant_id, p.id FROM queueing_partition p
    WHERE p.queue_id IS NOT NULL AND p.last_seq = p.removed AND p.last_at < now() - %(days)s * interval '1 day'
        AND NOT EXISTS (
            SELECT FROM queueing_deadmessage d WHERE d.partition_id = p.id AND d.tenant_id + 0 = p.tenant_id
        )
        AND NOT EXISTS (
            SELECT FROM queueing_message m WHERE m.tenant_id = p.tenant_id AND m.partition_id = p.id
        )
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), readers AS (
    DELETE FROM queueing_consumer c USING old o WHERE c.tenant_id = o.tenant_id AND c.partition_id = o.id
)
DELETE FROM queueing_partition p USING old o WHERE p.tenant_id = o.tenant_id AND p.id = o.id RETURNING p.id

-- name: traffic_queues
-- Queues that have traffic rows, and whether each still exists. A loose index scan: it jumps from queue to queue in the key.
WITH RECURSIVE leap AS (
    (SELECT tenant_id, queue_id FROM queueing_traffic ORDER BY tenant_id, queue_id LIMIT 1)
    UNION ALL
    SELECT n.tenant_id, n.queue_id FROM leap l CROSS JOIN LATERAL (
        SELECT t.tenant_id, t.queue_id FROM queueing_traffic t
        WHERE (t.tenant_id, t.queue_id) > (l.tenant_id, l.queue_id) ORDER BY t.tenant_id, t.queue_id LIMIT 1
    ) n
)
SELECT l.tenant_id, l.queue_id, EXISTS (SELECT FROM queueing_queue q WHERE q.tenant_id = l.tenant_id AND q.id = l.queue_id)
FROM leap l

-- name: remove_traffic
DELETE FROM queueing_traffic WHERE tenant_id = %(tenant)s AND queue_id = %(queue)s AND minute IN (
    SELECT t.minute FROM queueing_traffic t WHERE t.tenant_id = %(tenant)s AND t.queue_id = %(queue)s
        AND (NOT %(exists)s::boolean OR t.minute < now() - %(days)s * interval '1 day')
    ORDER BY t.minute LIMIT %(limit)s
) RETURNING minute

-- name: remove_traces
-- Delete old traces. Ids of version 7 begin with the time, so the primary key finds them.
DELETE FROM queueing_trace WHERE tenant_id = %(tenant)s AND id IN (
    SELECT t.id FROM queueing_trace t WHERE t.tenant_id = %(tenant)s AND t.id < %(before)s::uuid ORDER BY t.id LIMIT %(limit)s
) RETURNING id

-- name: tenants
SELECT id FROM registry_tenant ORDER BY id

-- name: forget_ended
-- Delete ended dead letters (replayed or purged) `days` days later, once their group's cursor has passed them. Until then a
-- second replay is answered with `duplicate`.
DELETE FROM queueing_deadmessage d WHERE d.ctid = ANY(ARRAY(
    SELECT e.ctid FROM queueing_deadmessage e
    WHERE e.ended_at < now() - %(days)s * interval '1 day' AND NOT EXISTS (
        SELECT FROM queueing_consumer c WHERE c.tenant_id = e.tenant_id AND c.partition_id = e.partition_id
            AND c.group_id = e.group_id AND c.cursor < e.seq
    )
    LIMIT %(limit)s
)) AND d.ended_at IS NOT NULL RETURNING d.id
