-- Statements of check_books. Each compares within one snapshot, with one look-up per row (docs/decisions/024).

-- name: page
-- Those of dropped queues are left out: their messages are being deleted.
SELECT max(id), count(*) FROM (
    SELECT id FROM queueing_partition WHERE tenant_id = %(tenant)s AND id > %(after)s AND queue_id IS NOT NULL
    ORDER BY id + 0 LIMIT %(limit)s
) page;

-- name: last
SELECT coalesce(max(id + 0), 0) FROM queueing_partition WHERE tenant_id = %(tenant)s AND queue_id IS NOT NULL;

-- name: partitions
-- Partitions whose messages differ from their counters, and those with a group that has read more than there is.
WITH slice AS MATERIALIZED (
    SELECT p.id, q.name AS queue, p.name, p.last_seq, p.removed
    FROM queueing_partition p JOIN queueing_queue q ON q.id = p.queue_id
    WHERE p.tenant_id = %(tenant)s AND p.id > %(after)s AND p.id <= %(last)s
)
SELECT p.queue, p.name, p.last_seq, p.removed, m.n, m.newest, c.furthest
FROM slice p
CROSS JOIN LATERAL (
    SELECT count(*) AS n, coalesce(max(m.seq), 0) AS newest FROM queueing_message m
    WHERE m.tenant_id = %(tenant)s AND m.partition_id = p.id
) m
CROSS JOIN LATERAL (
    SELECT coalesce(max(c.cursor), 0) AS furthest FROM queueing_consumer c
    WHERE c.tenant_id = %(tenant)s AND c.partition_id = p.id
) c
WHERE m.n <> p.last_seq - p.removed OR m.newest > p.last_seq OR c.furthest > p.last_seq
ORDER BY p.id;
