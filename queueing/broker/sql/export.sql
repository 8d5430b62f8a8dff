-- name: joins
-- The queue and the partition of an exported message `t`: its payload was encrypted for their names.
LEFT JOIN queueing_partition p ON p.tenant_id = t.tenant_id AND p.id = t.partition_id
LEFT JOIN queueing_queue q ON q.tenant_id = t.tenant_id AND q.id = p.queue_id;

-- name: names
'queue', q.name, 'partition', p.name;
