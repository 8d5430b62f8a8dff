-- name: dead_letters
SELECT d.id, d.transaction_id, d.partition_id, q.name, d.partition_name, d.group_name, d.error, d.attempts, d.payload, d.key_id,
    d.trace_id, d.producer, d.message_id, d.created_at, d.failed_at
FROM queueing_deadmessage d
JOIN queueing_queue q ON q.tenant_id = d.tenant_id AND q.id = d.queue_id
WHERE d.tenant_id = %(tenant)s AND d.ended_at IS NULL
    AND (%(queue)s::text = '' OR q.name = %(queue)s) AND (%(group)s::text = '' OR d.group_name = %(group)s)
    AND (%(partition)s::text = '' OR d.partition_name = %(partition)s)
    AND (%(from)s::timestamptz IS NULL OR d.failed_at >= %(from)s) AND (%(to)s::timestamptz IS NULL OR d.failed_at <= %(to)s)
ORDER BY d.failed_at DESC, d.id DESC LIMIT %(limit)s OFFSET %(offset)s

-- name: how_many
SELECT count(*)
FROM queueing_deadmessage d
JOIN queueing_queue q ON q.tenant_id = d.tenant_id AND q.id = d.queue_id
WHERE d.tenant_id = %(tenant)s AND d.ended_at IS NULL
    AND (%(queue)s::text = '' OR q.name = %(queue)s) AND (%(group)s::text = '' OR d.group_name = %(group)s)
    AND (%(partition)s::text = '' OR d.partition_name = %(partition)s)
    AND (%(from)s::timestamptz IS NULL OR d.failed_at >= %(from)s) AND (%(to)s::timestamptz IS NULL OR d.failed_at <= %(to)s)

-- name: dead_letter
SELECT d.id, d.transaction_id, d.partition_id, q.name, d.partition_name, d.group_name, d.error, d.attempts, d.payload, d.key_id,
    d.trace_id, d.producer, d.message_id, d.created_at, d.failed_at
FROM queueing_deadmessage d
JOIN queueing_queue q ON q.id = d.queue_id AND q.tenant_id + 0 = d.tenant_id
WHERE d.tenant_id = %(tenant)s AND d.id = %(id)s

-- name: oldest_of_message
SELECT id FROM queueing_deadmessage
WHERE partition_id = %(partition)s AND tenant_id + 0 = %(tenant)s AND transaction_id = %(transaction)s
ORDER BY ended_at IS NOT NULL, id LIMIT 1

-- name: lock_open
SELECT id FROM queueing_deadmessage WHERE tenant_id = %(tenant)s AND id = %(id)s AND ended_at IS NULL FOR UPDATE

-- name: end
UPDATE queueing_deadmessage SET ended_at = now() WHERE tenant_id = %(tenant)s AND id = %(id)s AND ended_at IS NULL

-- name: purge
-- Delete open dead letters of a queue. A row that its group's cursor has not passed is ended instead: it keeps its message
-- from being delivered again.
WITH chosen AS MATERIALIZED (
    SELECT d.id, EXISTS (
        SELECT FROM queueing_consumer c WHERE c.tenant_id = d.tenant_id AND c.partition_id = d.partition_id
            AND c.group_id = d.group_id AND c.cursor < d.seq
    ) AS needed
    FROM queueing_deadmessage d
    JOIN queueing_queue q ON q.tenant_id = d.tenant_id AND q.id = d.queue_id
    WHERE d.tenant_id = %(tenant)s AND d.ended_at IS NULL AND q.name = %(queue)s
        AND (%(group)s::text = '' OR d.group_name = %(group)s)
    LIMIT %(limit)s
    FOR UPDATE OF d SKIP LOCKED
), hidden AS (
    UPDATE queueing_deadmessage d SET ended_at = now() FROM chosen s WHERE d.tenant_id = %(tenant)s AND d.id = s.id AND s.needed
), gone AS (
    DELETE FROM queueing_deadmessage d USING chosen s WHERE d.tenant_id = %(tenant)s AND d.id = s.id AND NOT s.needed
)
SELECT count(*) FROM chosen

-- name: lock_behind
-- Lock the consumers of all groups, or of the named one, that have not completed this message.
SELECT g.id, c.attempt, c.lease_id IS NOT NULL FROM queueing_consumer c
JOIN queueing_group g ON g.id = c.group_id AND g.tenant_id + 0 = c.tenant_id
WHERE c.tenant_id = %(tenant)s AND c.partition_id = %(partition)s AND c.cursor < %(seq)s
    AND (%(group)s::text = '' OR g.name = %(group)s)
ORDER BY c.group_id FOR UPDATE OF c

-- name: mark_buried
-- Note the number of a dead letter in its groups' consumers; those without a lease are due at once, to be rescheduled.
UPDATE queueing_consumer SET buried = greatest(buried, %(seq)s::bigint),
    due_at = CASE WHEN lease_id IS NULL AND due_at IS NOT NULL THEN '-infinity' ELSE due_at END
WHERE tenant_id = %(tenant)s AND partition_id = %(partition)s AND group_id = ANY(%(groups)s::bigint[])
