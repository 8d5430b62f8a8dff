-- name: add_trace
INSERT INTO queueing_trace (id, tenant_id, partition_id, transaction_id, group_name, event_type, names, data)
VALUES (
    %(id)s::uuid, %(tenant)s, %(partition)s, %(transaction)s, %(group)s, %(event)s, %(names)s::jsonb, %(data)s
)

-- name: traces_of
SELECT id, partition_id, transaction_id, group_name, event_type, names::text, data, created_at FROM queueing_trace
WHERE tenant_id = %(tenant)s AND partition_id = %(partition)s AND transaction_id = %(transaction)s
ORDER BY created_at, id LIMIT 1000

-- name: traces_named
SELECT id, partition_id, transaction_id, group_name, event_type, names::text, data, created_at FROM queueing_trace
WHERE tenant_id = %(tenant)s AND names @> %(names)s::jsonb
ORDER BY created_at DESC, id DESC LIMIT %(limit)s OFFSET %(offset)s

-- name: traces_named_count
SELECT count(*) FROM queueing_trace WHERE tenant_id = %(tenant)s AND names @> %(names)s::jsonb

-- name: trace_names
SELECT n.name, count(*), count(DISTINCT (t.partition_id, t.transaction_id)), max(t.created_at), count(*) OVER ()
FROM queueing_trace t CROSS JOIN LATERAL jsonb_array_elements_text(t.names) AS n (name)
WHERE t.tenant_id = %(tenant)s
GROUP BY n.name ORDER BY max(t.created_at) DESC, n.name LIMIT %(limit)s OFFSET %(offset)s
