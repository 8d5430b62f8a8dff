-- name: find_queue
SELECT id, name, namespace, task, priority, encrypted, max_size, window_seconds
FROM queueing_queue WHERE tenant_id = %(tenant)s AND name = %(name)s

-- name: queues_about
SELECT id, name, namespace, task, priority, encrypted, max_size, window_seconds
FROM queueing_queue
WHERE tenant_id = %(tenant)s AND (%(namespace)s::text = '' OR namespace = %(namespace)s) AND (%(task)s::text = '' OR task = %(task)s)

-- name: add_queue
INSERT INTO queueing_queue (tenant_id, name, namespace, task)
VALUES (%(tenant)s, %(name)s::text, split_part(%(name)s::text, '.', 1), split_part(%(name)s::text, '.', 2))
ON CONFLICT (tenant_id, name) DO NOTHING

-- name: lock_queue
SELECT id, max_size FROM queueing_queue WHERE tenant_id = %(tenant)s AND name = %(name)s FOR UPDATE

-- name: find_partitions
SELECT name, id FROM queueing_partition
WHERE tenant_id = %(tenant)s AND queue_id = %(queue)s AND name = ANY(%(names)s)

-- name: add_partitions
WITH added AS (
    INSERT INTO queueing_partition (tenant_id, queue_id, name)
    SELECT %(tenant)s, %(queue)s, n FROM unnest(%(names)s::text[]) AS n
    ON CONFLICT (tenant_id, queue_id, name) DO NOTHING
    RETURNING id
)
INSERT INTO queueing_consumer (tenant_id, partition_id, group_id)
SELECT %(tenant)s, a.id, g.id FROM added a JOIN queueing_group g ON g.tenant_id = %(tenant)s AND g.queue_id = %(queue)s

-- name: name_partitions
SELECT p.id, p.name, q.id, q.name FROM queueing_partition p
JOIN queueing_queue q ON q.id = p.queue_id AND q.tenant_id + 0 = p.tenant_id
WHERE p.id = ANY(%(partitions)s) AND p.tenant_id + 0 = %(tenant)s

-- name: find_group
SELECT id FROM queueing_group WHERE tenant_id = %(tenant)s AND queue_id = %(queue)s AND name = %(name)s

-- name: add_group
INSERT INTO queueing_group (tenant_id, queue_id, name, mode, subscribed_from)
VALUES (%(tenant)s, %(queue)s, %(name)s, %(mode)s, %(from)s)
ON CONFLICT (tenant_id, queue_id, name) DO NOTHING
RETURNING id

-- name: lock_partitions
SELECT id FROM queueing_partition
WHERE tenant_id = %(tenant)s AND queue_id = %(queue)s AND (%(partition)s::text IS NULL OR name = %(partition)s)
ORDER BY id FOR UPDATE

-- name: set_cursors
-- Set a group's cursor in these partitions by its subscription: before the first message that exists and is wanted. The
-- caller has locked the partitions, so that nobody pushes meanwhile.
WITH start AS MATERIALIZED (
    SELECT p.id, p.last_seq, coalesce((
        SELECT m.seq - 1 FROM queueing_message m
        WHERE m.tenant_id = p.tenant_id AND m.partition_id = p.id AND %(mode)s::text <> 'new'
            AND (%(mode)s::text <> 'timestamp' OR m.created_at >= %(from)s::timestamptz)
        ORDER BY m.seq LIMIT 1
    ), p.last_seq) AS cursor
    FROM queueing_partition p
    WHERE p.tenant_id = %(tenant)s AND p.id = ANY(%(partitions)s::bigint[])
), waiting AS (
    UPDATE queueing_partition p SET idle = true FROM start s
    WHERE p.tenant_id = %(tenant)s AND p.id = s.id AND s.cursor >= s.last_seq AND NOT p.idle
)
INSERT INTO queueing_consumer (tenant_id, partition_id, group_id, cursor, delivered, due_at)
SELECT %(tenant)s, s.id, %(group)s, s.cursor, s.cursor, CASE WHEN s.cursor < s.last_seq THEN (
    SELECT m.created_at + q.delay_seconds * interval '1 second'
    FROM queueing_message m, queueing_queue q
    WHERE m.tenant_id = %(tenant)s AND m.partition_id = s.id AND m.seq > s.cursor
        AND q.tenant_id = %(tenant)s AND q.id = %(queue)s
    ORDER BY m.seq LIMIT 1
) END
FROM start s
ORDER BY s.id
ON CONFLICT (tenant_id, partition_id, group_id) DO UPDATE SET
    cursor = excluded.cursor, delivered = excluded.cursor, buried = 0, due_at = excluded.due_at, lease_id = NULL,
    attempt = 0, singly = 0

-- name: push
SELECT * FROM queueing_push(
    %(tenants)s, %(partitions)s, %(slots)s, %(ids)s, %(transactions)s, %(payloads)s, %(keys)s, %(traces)s, %(producers)s,
    %(counted)s
)

-- name: size
-- Number of messages that the slowest group has not consumed; without a group, of all messages.
SELECT coalesce(sum(p.last_seq - least(p.last_seq, coalesce((
    SELECT min(c.cursor) FROM queueing_consumer c WHERE c.tenant_id = p.tenant_id AND c.partition_id = p.id
), p.removed))), 0)::bigint
FROM queueing_partition p WHERE p.tenant_id = %(tenant)s AND p.queue_id = %(queue)s

-- name: claim
SELECT * FROM queueing_claim(
    %(source_sets)s, %(tenants)s, %(groups)s, %(partitions)s, %(priorities)s, %(counts)s, %(slot_sets)s, %(places)s,
    %(requests)s, %(sizes)s, %(leases)s
)

-- name: reschedule
SELECT queueing_rest(%(tenants)s, %(partitions)s, %(groups)s)

-- name: next_due
-- Seconds until the first consumer of these groups is due, and how many of the groups exist. Includes consumers that became
-- due up to `missed` seconds ago, after the caller's claim.
SELECT (
    SELECT extract(epoch FROM min(d.due_at) - now())::float8
    FROM unnest(%(groups)s::bigint[]) AS u (g)
    CROSS JOIN LATERAL (
        SELECT c.due_at FROM queueing_consumer c
        WHERE c.tenant_id = %(tenant)s AND c.group_id = u.g AND c.due_at > now() - make_interval(secs => %(missed)s)
        ORDER BY c.due_at LIMIT 1
    ) d
), (SELECT count(*) FROM queueing_group WHERE id = ANY(%(groups)s) AND tenant_id + 0 = %(tenant)s)

-- name: existing_groups
SELECT id FROM queueing_group WHERE id = ANY(%(groups)s) AND tenant_id + 0 = %(tenant)s

-- name: complete
SELECT * FROM queueing_complete(%(tenants)s, %(partitions)s, %(names)s, %(leases)s, %(owners)s, %(transactions)s)

-- name: lock_consumers
-- Lock the consumers of live leases, with their queues' options. MATERIALIZED with ORDER BY: the rows are locked one after the
-- other in the order in which everybody locks several.
WITH k AS MATERIALIZED (
    SELECT u.p, u.lease, g.*
    FROM unnest(%(partitions)s::bigint[], %(names)s::text[], %(leases)s::uuid[]) AS u (p, name, lease)
    CROSS JOIN LATERAL (
        SELECT g.id AS group_id, g.name, q.retry_limit, q.retry_delay_ms, q.dead_letter_after_retries, q.dead_letter_queue
        FROM queueing_partition p
        JOIN queueing_queue q ON q.id = p.queue_id AND q.tenant_id + 0 = p.tenant_id
        JOIN queueing_group g ON g.tenant_id = p.tenant_id AND g.queue_id = p.queue_id AND g.name = u.name
        WHERE p.id = u.p AND p.tenant_id + 0 = %(tenant)s
        OFFSET 0
    ) g
    ORDER BY u.p, g.group_id
)
SELECT c.lease_id, c.partition_id, c.group_id, k.name, c.cursor, c.delivered, c.buried, c.attempt, k.retry_limit,
    k.retry_delay_ms, k.dead_letter_after_retries, k.dead_letter_queue
FROM k CROSS JOIN LATERAL (
    SELECT * FROM queueing_consumer c
    WHERE c.tenant_id = %(tenant)s AND c.partition_id = k.p AND c.group_id = k.group_id AND c.lease_id = k.lease
        AND coalesce(c.due_at > clock_timestamp(), false)
    FOR UPDATE
) c

-- name: dead_beyond_cursor
-- Numbers of the dead letters of these consumers beyond their cursors.
SELECT c.partition_id, c.group_id, d.seq
FROM unnest(%(partitions)s::bigint[], %(groups)s::bigint[]) AS u (p, g)
CROSS JOIN LATERAL (
    SELECT * FROM queueing_consumer c
    WHERE c.tenant_id = %(tenant)s AND c.partition_id = u.p AND c.group_id = u.g OFFSET 0
) c
JOIN queueing_deadmessage d ON d.partition_id = c.partition_id AND d.group_id = c.group_id AND d.seq > c.cursor
    AND d.tenant_id + 0 = c.tenant_id

-- name: leases_of
-- Which of `leases` each of these groups holds on its partition now.
SELECT k.n, c.lease_id
FROM unnest(%(partitions)s::bigint[], %(names)s::text[]) WITH ORDINALITY AS k (p, name, n)
CROSS JOIN LATERAL (
    SELECT c.lease_id FROM queueing_consumer c JOIN queueing_group g ON g.id = c.group_id AND g.tenant_id + 0 = c.tenant_id
    WHERE c.tenant_id = %(tenant)s AND c.partition_id = k.p AND c.lease_id = ANY(%(leases)s::uuid[]) AND g.name = k.name
    OFFSET 0
) c

-- name: message_numbers
-- Numbers of messages in their partitions, by transaction id.
SELECT u.n, m.seq
FROM unnest(%(partitions)s::bigint[], %(transactions)s::text[]) WITH ORDINALITY AS u (p, transaction_id, n)
JOIN queueing_message m ON m.transaction_id = u.transaction_id AND m.partition_id = u.p AND m.tenant_id + 0 = %(tenant)s
WHERE u.p BETWEEN 1 AND 9223372036854775807  -- always true: makes the planner expect one row and use the index

-- name: add_dead_letters
-- Copy messages to the dead letters of their groups. `dropped`: the row is ended at once, so that nobody can list it.
INSERT INTO queueing_deadmessage (
    tenant_id, queue_id, partition_id, group_id, group_name, partition_name, seq, message_id, transaction_id, payload,
    key_id, trace_id, producer, error, attempts, created_at, ended_at
)
SELECT m.tenant_id, p.queue_id, p.id, g.id, g.name, p.name, m.seq, m.id, m.transaction_id, m.payload, m.key_id, m.trace_id,
    m.producer, u.error, u.attempts, m.created_at, CASE WHEN u.dropped THEN now() END
FROM unnest(
    %(partitions)s::bigint[], %(groups)s::bigint[], %(seqs)s::bigint[], %(errors)s::text[], %(attempts)s::bigint[],
    %(dropped)s::boolean[]
) AS u (p, g, seq, error, attempts, dropped)
CROSS JOIN LATERAL (
    SELECT * FROM queueing_message m
    WHERE m.tenant_id = %(tenant)s AND m.partition_id = u.p AND m.seq = u.seq OFFSET 0
) m
JOIN queueing_partition p ON p.id = m.partition_id AND p.tenant_id + 0 = m.tenant_id
JOIN queueing_group g ON g.id = u.g AND g.tenant_id + 0 = m.tenant_id
ON CONFLICT (tenant_id, partition_id, group_id, seq) DO NOTHING

-- name: update_consumers
-- Update consumers that the caller has locked. Where a lease ends they are due after `wait` seconds, or at once:
-- queueing_rest then computes the exact time. MATERIALIZED: else the tenant would be a constant, and the planner might read
-- all consumers of the tenant.
WITH u AS MATERIALIZED (
    SELECT %(tenant)s::bigint AS tenant_id, t.*
    FROM unnest(
        %(partitions)s::bigint[], %(groups)s::bigint[], %(cursors)s::bigint[], %(buried)s::bigint[], %(attempts)s::bigint[],
        %(releases)s::boolean[], %(waits)s::float8[]
    ) AS t (p, g, cursor, buried, attempt, release, wait)
    WHERE t.p BETWEEN 1 AND 9223372036854775807  -- always true: makes the planner expect one row and use the index
)
UPDATE queueing_consumer c SET
    cursor = greatest(c.cursor, u.cursor),
    consumed = c.consumed + greatest(u.cursor - c.cursor, 0),
    consumed_at = CASE WHEN u.cursor > c.cursor THEN now() ELSE c.consumed_at END,
    buried = greatest(c.buried, u.buried),
    attempt = u.attempt,
    lease_id = CASE WHEN u.release THEN NULL ELSE c.lease_id END,
    due_at = CASE WHEN NOT u.release THEN c.due_at WHEN u.wait > 0 THEN clock_timestamp() + u.wait * interval '1 second'
        ELSE '-infinity' END
FROM u
WHERE c.tenant_id = u.tenant_id AND c.partition_id = u.p AND c.group_id = u.g

-- name: extend
UPDATE queueing_consumer SET due_at = greatest(due_at, now() + %(seconds)s * interval '1 second')
WHERE lease_id = %(lease)s AND tenant_id + 0 = %(tenant)s AND coalesce(due_at > now(), false)
RETURNING due_at

-- name: lease_known
SELECT count(*) FROM queueing_consumer WHERE lease_id = %(lease)s AND tenant_id + 0 = %(tenant)s

-- name: lock_partition
SELECT last_seq FROM queueing_partition WHERE id = %(partition)s AND tenant_id + 0 = %(tenant)s FOR UPDATE

-- name: find_message
SELECT id FROM queueing_message
WHERE transaction_id = %(transaction)s AND partition_id = %(partition)s AND tenant_id + 0 = %(tenant)s

-- name: lock_poisoned
-- Lock a poison message's consumer while it has the lease under which the message was claimed.
SELECT q.dead_letter_queue
FROM queueing_consumer c
JOIN queueing_group g ON g.id = c.group_id AND g.tenant_id + 0 = c.tenant_id
JOIN queueing_queue q ON q.id = g.queue_id AND q.tenant_id + 0 = g.tenant_id
WHERE c.tenant_id = %(tenant)s AND c.partition_id = %(partition)s AND c.group_id = %(group)s
    AND c.lease_id IS NOT DISTINCT FROM %(lease)s::uuid
FOR UPDATE OF c

-- name: postpone
-- Release partitions whose messages cannot be decrypted, and make them due again after 5 seconds.
UPDATE queueing_consumer SET lease_id = NULL, due_at = now() + interval '5 seconds'
WHERE lease_id = %(lease)s AND tenant_id + 0 = %(tenant)s AND partition_id = ANY(%(partitions)s::bigint[])

-- name: release_lease
UPDATE queueing_consumer SET lease_id = NULL, due_at = '-infinity'
WHERE lease_id = %(lease)s AND tenant_id + 0 = %(tenant)s

-- name: lock_live_leases
-- Lock the consumers of live leases, so that none expires and is claimed by another reader before the caller commits; in the
-- order in which everybody locks several.
SELECT lease_id FROM queueing_consumer
WHERE lease_id = ANY(%(leases)s::uuid[]) AND tenant_id + 0 = %(tenant)s AND coalesce(due_at > clock_timestamp(), false)
ORDER BY tenant_id, partition_id, group_id
FOR UPDATE
