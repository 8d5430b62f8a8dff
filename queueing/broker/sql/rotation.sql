-- name: partitions
-- The next page of a tenant's partitions that contain messages.
SELECT p.id, p.name, q.name FROM queueing_partition p
JOIN queueing_queue q ON q.tenant_id = p.tenant_id AND q.id = p.queue_id
WHERE p.tenant_id = %(tenant)s AND p.id > %(after)s AND p.last_seq > p.removed
ORDER BY p.id LIMIT %(limit)s

-- name: messages
SELECT seq, transaction_id, payload, key_id FROM queueing_message
WHERE tenant_id = %(tenant)s AND partition_id = %(partition)s AND seq > %(after)s
    AND key_id IS NOT NULL AND key_id <> %(key)s::text
ORDER BY seq LIMIT %(limit)s

-- name: change_messages
-- Update only rows that still have the key with which they were read: another rotation may run at the same time.
UPDATE queueing_message m SET payload = u.payload, key_id = %(key)s::text
FROM unnest(%(numbers)s::bigint[], %(payloads)s::bytea[], %(olds)s::text[]) AS u (seq, payload, old)
WHERE m.tenant_id = %(tenant)s AND m.partition_id = %(partition)s AND m.seq = u.seq AND m.key_id = u.old
RETURNING m.seq

-- name: dead_letters
SELECT d.tenant_id, d.id, q.name, d.partition_name, d.transaction_id, d.payload, d.key_id FROM queueing_deadmessage d
JOIN queueing_queue q ON q.tenant_id = d.tenant_id AND q.id = d.queue_id
WHERE d.tenant_id = %(tenant)s AND d.id > %(after)s AND d.key_id IS NOT NULL AND d.key_id <> %(key)s::text
ORDER BY d.id LIMIT %(limit)s

-- name: change_dead_letters
UPDATE queueing_deadmessage d SET payload = u.payload, key_id = %(key)s::text
FROM unnest(%(numbers)s::bigint[], %(payloads)s::bytea[], %(olds)s::text[]) AS u (id, payload, old)
WHERE d.tenant_id = %(tenant)s AND d.id = u.id AND d.key_id = u.old
RETURNING d.id

-- name: tenants
-- Tenants that have payloads.
SELECT t.id FROM registry_tenant t
WHERE EXISTS (SELECT FROM queueing_partition p WHERE p.tenant_id = t.id AND p.queue_id IS NOT NULL AND p.last_seq > p.removed)
   OR EXISTS (SELECT FROM queueing_deadmessage d WHERE d.tenant_id = t.id)
ORDER BY t.id

-- name: how_many
SELECT count(*) FROM queueing_partition WHERE tenant_id = %(tenant)s AND queue_id IS NOT NULL AND last_seq > removed
