-- name: configure
-- Set the options that are not NULL. Also returns whether an option changed that decides when a message becomes visible.
WITH old AS (
    SELECT id, delay_seconds, window_seconds, ttl_seconds FROM queueing_queue
    WHERE tenant_id = %(tenant)s AND name = %(name)s FOR UPDATE
)
UPDATE queueing_queue q SET
    namespace = coalesce(%(namespace)s, q.namespace),
    task = coalesce(%(task)s, q.task),
    lease_seconds = coalesce(%(lease_seconds)s::int, q.lease_seconds),
    retry_limit = coalesce(%(retry_limit)s::int, q.retry_limit),
    retry_delay_ms = coalesce(%(retry_delay_ms)s::int, q.retry_delay_ms),
    max_size = coalesce(%(max_size)s::bigint, q.max_size),
    ttl_seconds = coalesce(%(ttl_seconds)s::int, q.ttl_seconds),
    priority = coalesce(%(priority)s::int, q.priority),
    delay_seconds = coalesce(%(delay_seconds)s::int, q.delay_seconds),
    window_seconds = coalesce(%(window_seconds)s::int, q.window_seconds),
    retention_seconds = coalesce(%(retention_seconds)s::int, q.retention_seconds),
    completed_retention_seconds = coalesce(%(completed_retention_seconds)s::int, q.completed_retention_seconds),
    retention_enabled = coalesce(%(retention_enabled)s::boolean, q.retention_enabled),
    encrypted = coalesce(%(encrypted)s::boolean, q.encrypted),
    dead_letter_queue = coalesce(%(dead_letter_queue)s::boolean, q.dead_letter_queue),
    dead_letter_after_retries = coalesce(%(dead_letter_after_retries)s::boolean, q.dead_letter_after_retries),
    max_wait_seconds = coalesce(%(max_wait_seconds)s::int, q.max_wait_seconds)
FROM old
WHERE q.id = old.id
RETURNING q.id,
    (q.delay_seconds, q.window_seconds, q.ttl_seconds) IS DISTINCT FROM (old.delay_seconds, old.window_seconds, old.ttl_seconds),
    q.namespace, q.task, to_jsonb(q)::text

-- name: waiting_consumers
-- The next page of a queue's consumers that have messages to read and neither hold a lease nor wait for a retry.
SELECT p.id, c.group_id
FROM queueing_partition p
JOIN queueing_consumer c ON c.tenant_id = p.tenant_id AND c.partition_id = p.id
WHERE p.tenant_id = %(tenant)s AND p.queue_id = %(queue)s AND (p.id, c.group_id) > (%(partition)s, %(group)s)
    AND c.lease_id IS NULL AND c.attempt = 0 AND c.cursor < p.last_seq
ORDER BY p.id, c.group_id LIMIT %(limit)s

-- name: make_due
WITH u AS MATERIALIZED (  -- for the reason given at update_consumers in broker.sql
    SELECT %(tenant)s::bigint AS tenant_id, t.p, t.g FROM unnest(%(partitions)s::bigint[], %(groups)s::bigint[]) AS t (p, g)
    WHERE t.p BETWEEN 1 AND 9223372036854775807
)
UPDATE queueing_consumer c SET due_at = '-infinity'
FROM u
WHERE c.tenant_id = u.tenant_id AND c.partition_id = u.p AND c.group_id = u.g AND c.lease_id IS NULL

-- name: drop_partitions
-- Take partitions out of their queue. A periodic task deletes their messages in slices; a push creates them anew.
UPDATE queueing_partition SET queue_id = NULL, idle = false WHERE id = ANY(%(partitions)s::bigint[]) AND tenant_id + 0 = %(tenant)s

-- name: partitions_of
SELECT id FROM queueing_partition
WHERE tenant_id = %(tenant)s AND queue_id = %(queue)s AND (%(partition)s::text = '' OR name = %(partition)s)
ORDER BY id LIMIT %(limit)s FOR UPDATE

-- name: drop_consumers
DELETE FROM queueing_consumer WHERE tenant_id = %(tenant)s AND partition_id = ANY(%(partitions)s::bigint[])

-- name: drop_groups
DELETE FROM queueing_group WHERE tenant_id = %(tenant)s AND queue_id = %(queue)s

-- name: drop_queue
DELETE FROM queueing_queue WHERE tenant_id = %(tenant)s AND id = %(queue)s

-- name: clear_consumers
UPDATE queueing_consumer c SET cursor = p.last_seq, delivered = p.last_seq, due_at = NULL, lease_id = NULL, attempt = 0, singly = 0
FROM queueing_partition p
WHERE p.id = %(partition)s AND p.tenant_id + 0 = %(tenant)s AND c.tenant_id = p.tenant_id AND c.partition_id = p.id

-- name: clear_messages
DELETE FROM queueing_message WHERE tenant_id = %(tenant)s AND partition_id = %(partition)s AND seq IN (
    SELECT m.seq FROM queueing_message m WHERE m.tenant_id = %(tenant)s AND m.partition_id = %(partition)s
        AND m.seq <= %(through)s
    ORDER BY m.seq LIMIT %(limit)s
) RETURNING seq

-- name: mark_idle
-- Note that some group has read the whole partition, so that the next push schedules it.
UPDATE queueing_partition SET idle = true
WHERE id = %(partition)s AND tenant_id + 0 = %(tenant)s AND NOT idle AND EXISTS (
    SELECT FROM queueing_consumer WHERE tenant_id = %(tenant)s AND partition_id = %(partition)s
)

-- name: add_removed
UPDATE queueing_partition SET removed = removed + %(count)s WHERE id = %(partition)s AND tenant_id + 0 = %(tenant)s

-- name: message_to_delete
SELECT m.seq FROM queueing_message m
WHERE m.transaction_id = %(transaction)s AND m.partition_id = %(partition)s AND m.tenant_id + 0 = %(tenant)s

-- name: delete_message
DELETE FROM queueing_message
WHERE tenant_id = %(tenant)s AND partition_id = %(partition)s AND seq = %(seq)s RETURNING seq
