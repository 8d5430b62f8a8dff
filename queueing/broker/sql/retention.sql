-- name: aged
-- Partitions whose oldest message is too old: by the queue's retention, or its time to live. Reads one row of each.
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
-- Partitions whose oldest message every group has done, long enough ago that it came.
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
-- Partitions whose oldest waiting message (which some group has not done) has waited too long.
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

-- name: hold_partition
SELECT id FROM queueing_partition WHERE id = %(partition)s AND tenant_id + 0 = %(tenant)s FOR UPDATE

-- name: slowest
-- How far all groups are; NULL without a group.
SELECT min(cursor) FROM queueing_consumer WHERE tenant_id = %(tenant)s AND partition_id = %(partition)s

-- name: doomed
-- The end of the next slice of messages older than `age`, after `after` and up to `through`. The oldest come first, and
-- numbers follow time: what is to stay is read at most once.
SELECT max(s.seq) FROM (
    SELECT m.seq, m.created_at FROM queueing_message m
    WHERE m.tenant_id = %(tenant)s AND m.partition_id = %(partition)s AND m.seq > %(after)s AND m.seq <= %(through)s
    ORDER BY m.seq LIMIT %(limit)s
) s
WHERE s.created_at < now() - %(age)s * interval '1 second'

-- name: behind
SELECT count(*) FROM queueing_consumer
WHERE tenant_id = %(tenant)s AND partition_id = %(partition)s AND cursor < %(through)s

-- name: hold_behind
-- Groups that have not done all up to there; who is being moved by somebody else at this moment is left out.
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

-- name: pass
-- What is not there any more, nobody has to read: cursors of those who have no lease go past it.
UPDATE queueing_consumer SET cursor = %(through)s, attempt = 0, lease_id = NULL, due_at = '-infinity'
WHERE tenant_id = %(tenant)s AND partition_id = %(partition)s AND group_id = ANY(%(groups)s::bigint[])

-- name: dropped
-- Partitions of queues that were dropped.
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

-- name: remove_letters
-- Who drops a queue drops its dead letters too: nobody could list or replay them.
DELETE FROM queueing_deadmessage WHERE tenant_id = %(tenant)s AND id IN (
    SELECT d.id FROM queueing_deadmessage d WHERE d.partition_id = %(partition)s AND d.tenant_id + 0 = %(tenant)s LIMIT %(limit)s
) RETURNING id

-- name: remove_partition
DELETE FROM queueing_partition WHERE id = %(partition)s AND tenant_id + 0 = %(tenant)s AND queue_id IS NULL

-- name: empty_partitions
-- Nothing is in them and nothing came for long; a push makes one anew. One with dead letters keeps its groups' places.
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
-- Queues that have figures, found by leaps through the key; and whether each still exists.
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
-- Their ids begin with their time, so the key finds the old ones.
DELETE FROM queueing_trace WHERE tenant_id = %(tenant)s AND id IN (
    SELECT t.id FROM queueing_trace t WHERE t.tenant_id = %(tenant)s AND t.id < %(before)s::uuid ORDER BY t.id LIMIT %(limit)s
) RETURNING id

-- name: tenants
SELECT id FROM registry_tenant ORDER BY id

-- name: forget_ended
-- Dead letters that were replayed or purged, once their group is past them and nobody asks about the replay any more.
DELETE FROM queueing_deadmessage d WHERE d.ctid = ANY(ARRAY(
    SELECT e.ctid FROM queueing_deadmessage e
    WHERE e.ended_at < now() - %(days)s * interval '1 day' AND NOT EXISTS (
        SELECT FROM queueing_consumer c WHERE c.tenant_id = e.tenant_id AND c.partition_id = e.partition_id
            AND c.group_id = e.group_id AND c.cursor < e.seq
    )
    LIMIT %(limit)s
)) AND d.ended_at IS NOT NULL RETURNING d.id
