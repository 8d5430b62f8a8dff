-- name: depths
-- Depth of each queue. Stored and waiting messages are differences of numbers that partitions and consumers carry; no message
-- is counted. Waiting messages are those that the slowest group has not read; without a group, all.
SELECT q.id, q.name, q.namespace, q.task, q.created_at, q.retention_enabled, q.retention_seconds,
    q.completed_retention_seconds, q.max_wait_seconds, p.partitions, p.total, p.removed, p.last_at,
    CASE WHEN g.groups = 0 THEN p.total ELSE greatest(w.waiting - w.processing, 0) END, w.processing, w.leases,
    w.partitions, w.handed, d.dead,
    CASE WHEN g.groups > 0 THEN w.oldest ELSE 0 END, g.groups, w.lagging, w.average
FROM queueing_queue q
CROSS JOIN LATERAL (
    SELECT count(*) AS partitions, coalesce(sum(p.last_seq - p.removed), 0)::bigint AS total,
        coalesce(sum(p.removed), 0)::bigint AS removed, max(p.last_at) FILTER (WHERE p.last_seq > 0) AS last_at
    FROM queueing_partition p WHERE p.tenant_id = q.tenant_id AND p.queue_id = q.id
) p
CROSS JOIN LATERAL (
    SELECT count(*) AS groups FROM queueing_group g
    WHERE g.tenant_id = q.tenant_id AND g.queue_id = q.id
) g
CROSS JOIN LATERAL (
    SELECT count(*) AS dead FROM queueing_deadmessage d
    WHERE d.tenant_id = q.tenant_id AND d.queue_id = q.id AND d.ended_at IS NULL
) d
CROSS JOIN LATERAL (
    SELECT coalesce(sum(b.waiting), 0)::bigint AS waiting, coalesce(sum(b.handed), 0)::bigint AS processing,
        coalesce(sum(b.leases), 0)::bigint AS leases, count(*) FILTER (WHERE b.leases > 0) AS partitions,
        coalesce(sum(b.handed), 0)::bigint AS handed, coalesce(max(b.seconds), 0)::float8 AS oldest,
        count(*) FILTER (WHERE b.waiting > 0) AS lagging, coalesce(avg(b.seconds), 0)::float8 AS average
    FROM (
        SELECT p.id, max(greatest(least(p.last_seq - c.cursor, p.last_seq - p.removed), 0)) AS waiting,
            max(CASE WHEN c.lease_id IS NOT NULL AND c.due_at > now() THEN c.delivered - c.cursor ELSE 0 END) AS handed,
            count(*) FILTER (WHERE c.lease_id IS NOT NULL AND c.due_at > now()) AS leases,
            max(greatest(extract(epoch FROM now() - m.created_at) - q.delay_seconds, 0)) AS seconds
        FROM queueing_group g
        JOIN queueing_consumer c ON c.tenant_id = g.tenant_id AND c.group_id = g.id AND c.due_at IS NOT NULL
        JOIN queueing_partition p ON p.tenant_id = c.tenant_id AND p.id = c.partition_id
        LEFT JOIN LATERAL (
            SELECT m.created_at FROM queueing_message m
            WHERE m.tenant_id = c.tenant_id AND m.partition_id = c.partition_id AND m.seq > c.cursor
            ORDER BY m.seq LIMIT 1
        ) m ON true
        WHERE g.tenant_id = q.tenant_id AND g.queue_id = q.id
        GROUP BY p.id
    ) b
) w
WHERE q.tenant_id = %(tenant)s AND (%(queue)s::text = '' OR q.name = %(queue)s)
    AND (%(namespace)s::text = '' OR q.namespace = %(namespace)s) AND (%(task)s::text = '' OR q.task = %(task)s)
ORDER BY q.name
LIMIT %(limit)s OFFSET %(offset)s

-- name: count_queues
SELECT count(*) FROM queueing_queue
WHERE tenant_id = %(tenant)s AND (%(namespace)s::text = '' OR namespace = %(namespace)s)
    AND (%(task)s::text = '' OR task = %(task)s)

-- name: traffic
-- Traffic by bucket, of all queues together or (`apart`) of each. Read queue by queue, so that the primary key finds the range
-- of minutes.
SELECT CASE WHEN %(apart)s THEN q.name ELSE '' END,
    date_bin(%(minutes)s * interval '1 minute', t.minute, 'epoch'::timestamptz) AS bucket,
    sum(t.push_requests)::bigint, sum(t.pushed)::bigint, sum(t.pop_requests)::bigint, sum(t.popped)::bigint,
    sum(t.empty_pops)::bigint, sum(t.ack_requests)::bigint, sum(t.completed)::bigint, sum(t.failed)::bigint,
    sum(t.buried)::bigint, sum(t.lag_ms)::bigint, max(t.max_lag_ms)
FROM queueing_queue q
CROSS JOIN LATERAL (
    SELECT * FROM queueing_traffic t
    WHERE t.tenant_id = q.tenant_id AND t.queue_id = q.id AND t.minute >= %(from)s AND t.minute < %(to)s
) t
WHERE q.tenant_id = %(tenant)s AND (%(queue)s::text = '' OR q.name = %(queue)s)
    AND (%(namespace)s::text = '' OR q.namespace = %(namespace)s) AND (%(task)s::text = '' OR q.task = %(task)s)
GROUP BY 1, 2
ORDER BY 1, 2

-- name: partitions
-- Depth of a queue's partitions, by the slowest group's cursor.
SELECT p.id, p.name, p.created_at, p.last_at, p.last_seq - p.removed, p.removed, coalesce((
        SELECT max(greatest(least(p.last_seq - c.cursor, p.last_seq - p.removed), 0)) FROM queueing_consumer c
        WHERE c.tenant_id = p.tenant_id AND c.partition_id = p.id
    ), p.last_seq - p.removed)::bigint, coalesce((
        SELECT max(c.delivered - c.cursor) FROM queueing_consumer c
        WHERE c.tenant_id = p.tenant_id AND c.partition_id = p.id AND c.lease_id IS NOT NULL AND c.due_at > now()
    ), 0)::bigint
FROM queueing_partition p
JOIN queueing_queue q ON q.tenant_id = p.tenant_id AND q.id = p.queue_id
WHERE q.tenant_id = %(tenant)s AND q.name = %(queue)s
ORDER BY p.name
LIMIT %(limit)s OFFSET %(offset)s

-- name: newest
-- Newest messages of a queue. The newest n messages are in the n partitions that were pushed to last.
SELECT m.id, m.transaction_id, m.trace_id, m.producer, m.created_at, r.id, r.name
FROM (
    SELECT p.tenant_id, p.id, p.name FROM queueing_partition p
    JOIN queueing_queue q ON q.tenant_id = p.tenant_id AND q.id = p.queue_id
    WHERE q.tenant_id = %(tenant)s AND q.name = %(queue)s
    ORDER BY p.last_at DESC LIMIT %(limit)s
) r
CROSS JOIN LATERAL (
    SELECT * FROM queueing_message m WHERE m.tenant_id = r.tenant_id AND m.partition_id = r.id
    ORDER BY m.seq DESC LIMIT %(limit)s
) m
ORDER BY m.created_at DESC, m.seq DESC
LIMIT %(limit)s

-- name: dead_at_most
SELECT count(*) FROM (SELECT FROM queueing_deadmessage WHERE ended_at IS NULL LIMIT %(most)s) d

-- name: database
SELECT d.numbackends, d.xact_commit, d.xact_rollback, d.blks_read, d.blks_hit, d.tup_inserted, d.tup_updated,
    d.tup_deleted, d.deadlocks, d.temp_bytes, pg_database_size(d.datid), d.stats_reset
FROM pg_stat_database d WHERE d.datname = current_database()

-- name: tables
SELECT s.relname::text, pg_total_relation_size(s.relid), s.n_live_tup, s.n_dead_tup, s.n_tup_ins, s.n_tup_upd, s.n_tup_hot_upd,
    s.n_tup_del, s.seq_scan, s.idx_scan, s.last_autovacuum, s.last_autoanalyze
FROM pg_stat_user_tables s WHERE s.relname LIKE 'queueing\_%%' ORDER BY 1
