-- What the message queue does in more than one step and one round trip. A function's statements see what was committed
-- before each of them began, so that a row's lock, once held, shows the row's last state: a single statement would not.

-- Messages are numbered under the lock of their partition's row, so that numbers appear in order. Returns what was not
-- added: `original` names the message that has the same transaction id; NULL with reason 'gone' means that the partition
-- was dropped, 'changed' that its queue wants what the caller did not do (encrypt, count against its maximum).
CREATE OR REPLACE FUNCTION queueing_push(
    tenants bigint[], partitions bigint[], ids uuid[], transactions text[], payloads bytea[], keys text[],
    traces uuid[], producers text[], counted boolean
) RETURNS TABLE (item bigint, original uuid, reason text) LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz;
    ready bigint[];
    sealed bigint[];
    sleeping bigint[];
BEGIN
    SELECT array_agg(held.id) FILTER (WHERE NOT held.full_check AND held.queue_id IS NOT NULL),
        array_agg(held.id) FILTER (WHERE held.encrypted),
        array_agg(held.id) FILTER (WHERE held.idle)
    INTO ready, sealed, sleeping
    FROM (
        SELECT p.id, p.queue_id, p.idle, coalesce(q.encrypted, false) AS encrypted,
            coalesce(q.max_size, 0) > 0 AND NOT counted AS full_check
        FROM (SELECT DISTINCT u.t, u.p FROM unnest(tenants, partitions) AS u (t, p)) w
        JOIN queueing_partition p ON p.tenant_id = w.t AND p.id = w.p
        LEFT JOIN queueing_queue q ON q.tenant_id = p.tenant_id AND q.id = p.queue_id
        ORDER BY p.tenant_id, p.id
        FOR UPDATE OF p
    ) held;
    moment := clock_timestamp();

    RETURN QUERY
    WITH item AS MATERIALIZED (
        SELECT * FROM unnest(tenants, partitions, ids, transactions, payloads, keys, traces, producers)
            WITH ORDINALITY AS u (tenant_id, partition_id, id, transaction_id, payload, key_id, trace_id, producer, n)
    ), fresh AS MATERIALIZED (
        SELECT f.*, row_number() OVER (PARTITION BY f.partition_id ORDER BY f.n) AS place
        FROM (
            SELECT DISTINCT ON (i.partition_id, i.transaction_id) i.*
            FROM item i
            WHERE i.partition_id = ANY(ready)
                AND (i.key_id IS NOT NULL OR sealed IS NULL OR i.partition_id <> ALL(sealed))
                AND NOT EXISTS (
                    SELECT FROM queueing_message m
                    WHERE m.tenant_id = i.tenant_id AND m.partition_id = i.partition_id
                        AND m.transaction_id = i.transaction_id
                )
            ORDER BY i.partition_id, i.transaction_id, i.n
        ) f
    ), head AS (
        UPDATE queueing_partition p SET last_seq = p.last_seq + c.added, last_at = moment, idle = false
        FROM (SELECT f.tenant_id, f.partition_id, count(*) AS added FROM fresh f GROUP BY 1, 2) c
        WHERE p.tenant_id = c.tenant_id AND p.id = c.partition_id
        RETURNING p.id, p.last_seq - c.added AS base
    ), added AS (
        INSERT INTO queueing_message (
            tenant_id, partition_id, seq, id, transaction_id, payload, key_id, trace_id, producer, created_at
        )
        SELECT f.tenant_id, f.partition_id, h.base + f.place, f.id, f.transaction_id, f.payload, f.key_id, f.trace_id,
            f.producer, moment
        FROM fresh f JOIN head h ON h.id = f.partition_id
        RETURNING queueing_message.id
    )
    SELECT i.n, coalesce(m.id, f.id),
        CASE WHEN m.id IS NOT NULL OR f.id IS NOT NULL THEN 'duplicate' WHEN p.id IS NOT NULL THEN 'changed' ELSE 'gone' END
    FROM item i
    LEFT JOIN added a ON a.id = i.id
    LEFT JOIN fresh f ON f.partition_id = i.partition_id AND f.transaction_id = i.transaction_id
    LEFT JOIN queueing_message m ON m.tenant_id = i.tenant_id AND m.partition_id = i.partition_id
        AND m.transaction_id = i.transaction_id
    LEFT JOIN queueing_partition p ON p.tenant_id = i.tenant_id AND p.id = i.partition_id AND p.queue_id IS NOT NULL
    WHERE a.id IS NULL;

    IF sleeping IS NOT NULL THEN
        UPDATE queueing_partition p SET idle = false
        FROM (SELECT DISTINCT u.t, u.p FROM unnest(tenants, partitions) AS u (t, p)) w
        WHERE p.tenant_id = w.t AND p.id = w.p AND p.id = ANY(sleeping) AND p.idle;
        UPDATE queueing_consumer c SET due_at = moment + q.delay_seconds * interval '1 second'
        FROM (SELECT DISTINCT u.t, u.p FROM unnest(tenants, partitions) AS u (t, p)) w
        JOIN queueing_partition p ON p.tenant_id = w.t AND p.id = w.p
        JOIN queueing_queue q ON q.tenant_id = p.tenant_id AND q.id = p.queue_id
        WHERE p.id = ANY(sleeping) AND c.tenant_id = p.tenant_id AND c.partition_id = p.id AND c.due_at IS NULL;
    END IF;
END $$;

-- Decide when these consumers, which are not leased, have something to read next; NULL when all is read. The partition's
-- lock keeps pushes away meanwhile: one that commits later finds `idle` and wakes them. Where somebody is pushing at this
-- moment the consumer stays as it is, due, and the next pop comes back to it.
CREATE OR REPLACE FUNCTION queueing_rest(tenants bigint[], partitions bigint[], groups bigint[])
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    held bigint[];
    resting bigint[];
BEGIN
    SELECT array_agg(h.id) INTO held FROM (
        SELECT p.id FROM (SELECT DISTINCT u.t, u.p FROM unnest(tenants, partitions) AS u (t, p)) w
        JOIN queueing_partition p ON p.tenant_id = w.t AND p.id = w.p
        FOR UPDATE OF p SKIP LOCKED
    ) h;
    IF held IS NULL THEN
        RETURN;
    END IF;
    WITH one AS MATERIALIZED (
        SELECT c.tenant_id, c.partition_id, c.group_id, c.cursor, p.last_seq, p.last_at, q.ttl_seconds, q.delay_seconds,
            q.window_seconds
        FROM unnest(tenants, partitions, groups) AS u (t, p, g)
        JOIN queueing_consumer c ON c.tenant_id = u.t AND c.partition_id = u.p AND c.group_id = u.g
        JOIN queueing_partition p ON p.tenant_id = u.t AND p.id = u.p
        JOIN queueing_queue q ON q.tenant_id = u.t AND q.id = p.queue_id
        WHERE u.p = ANY(held) AND c.lease_id IS NULL AND c.due_at <= clock_timestamp()
        FOR UPDATE OF c SKIP LOCKED
    ), next AS (
        SELECT o.*, m.seq, m.created_at
        FROM one o
        LEFT JOIN LATERAL (
            SELECT m.seq, m.created_at FROM queueing_message m
            WHERE m.tenant_id = o.tenant_id AND m.partition_id = o.partition_id AND m.seq > o.cursor
                AND (o.ttl_seconds = 0 OR m.created_at > clock_timestamp() - o.ttl_seconds * interval '1 second')
            ORDER BY m.seq LIMIT 1
        ) m ON true
    ), moved AS (
        UPDATE queueing_consumer c SET
            cursor = greatest(c.cursor, coalesce(n.seq - 1, n.last_seq)),
            due_at = greatest(
                n.created_at + n.delay_seconds * interval '1 second',
                CASE WHEN n.seq IS NOT NULL AND n.window_seconds > 0 THEN n.last_at + n.window_seconds * interval '1 second' END
            )
        FROM next n
        WHERE c.tenant_id = n.tenant_id AND c.partition_id = n.partition_id AND c.group_id = n.group_id
        RETURNING c.partition_id, c.due_at
    )
    SELECT array_agg(DISTINCT m.partition_id) INTO resting FROM moved m WHERE m.due_at IS NULL;
    IF resting IS NOT NULL THEN
        UPDATE queueing_partition p SET idle = true
        FROM (SELECT DISTINCT u.t, u.p FROM unnest(tenants, partitions) AS u (t, p)) w
        WHERE p.tenant_id = w.t AND p.id = w.p AND p.id = ANY(resting) AND NOT p.idle;
    END IF;
END $$;

-- Move the cursors of leased consumers past these messages. One key is one lease on one partition; items name their key by
-- its place. Returns the items that were refused with their reason, and (item 0) the keys whose lease ended.
CREATE OR REPLACE FUNCTION queueing_complete(
    tenants bigint[], partitions bigint[], names text[], leases uuid[], owners bigint[], transactions text[]
) RETURNS TABLE (item bigint, key bigint, reason text) LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz := clock_timestamp();
    refused_items bigint[];
    reasons text[];
    ended bigint[];
    rest_tenants bigint[];
    rest_partitions bigint[];
    rest_groups bigint[];
BEGIN
    WITH held AS MATERIALIZED (
        SELECT k.k, c.tenant_id, c.partition_id, c.group_id, c.cursor, c.delivered, q.delay_seconds
        FROM unnest(tenants, partitions, names, leases) WITH ORDINALITY AS k (t, p, name, lease, k)
        JOIN queueing_consumer c ON c.tenant_id = k.t AND c.partition_id = k.p AND c.lease_id = k.lease
        JOIN queueing_group g ON g.tenant_id = c.tenant_id AND g.id = c.group_id AND g.name = k.name
        JOIN queueing_queue q ON q.tenant_id = g.tenant_id AND q.id = g.queue_id
        WHERE c.due_at > moment
        ORDER BY c.tenant_id, c.partition_id, c.group_id
        FOR UPDATE OF c
    ), found AS MATERIALIZED (
        SELECT i.n, h.k, m.seq
        FROM unnest(owners, transactions) WITH ORDINALITY AS i (k, transaction_id, n)
        LEFT JOIN held h ON h.k = i.k
        LEFT JOIN queueing_message m ON m.tenant_id = h.tenant_id AND m.partition_id = h.partition_id
            AND m.transaction_id = i.transaction_id AND m.seq <= h.delivered
    ), top AS (
        SELECT f.k, max(f.seq) AS seq FROM found f WHERE f.seq IS NOT NULL GROUP BY f.k
    ), moved AS (
        UPDATE queueing_consumer c SET
            cursor = greatest(c.cursor, t.seq),
            consumed = c.consumed + greatest(t.seq - c.cursor, 0),
            consumed_at = moment,
            attempt = CASE WHEN t.seq > c.cursor THEN 0 ELSE c.attempt END,
            lease_id = CASE WHEN t.seq < c.delivered THEN c.lease_id END,
            due_at = CASE WHEN t.seq < c.delivered THEN c.due_at ELSE coalesce((
                SELECT m.created_at + h.delay_seconds * interval '1 second' FROM queueing_message m
                WHERE m.tenant_id = h.tenant_id AND m.partition_id = h.partition_id AND m.seq > h.delivered
                ORDER BY m.seq LIMIT 1
            ), '-infinity') END
        FROM top t JOIN held h ON h.k = t.k
        WHERE c.tenant_id = h.tenant_id AND c.partition_id = h.partition_id AND c.group_id = h.group_id
        RETURNING t.k, c.tenant_id, c.partition_id, c.group_id, c.lease_id, c.due_at
    ), refused AS (
        SELECT array_agg(f.n) AS items,
            array_agg(CASE WHEN f.k IS NULL THEN 'Invalid or expired lease' ELSE 'Message not found' END) AS reasons
        FROM found f WHERE f.seq IS NULL
    ), outcome AS (
        SELECT array_agg(m.k) FILTER (WHERE m.lease_id IS NULL) AS ended,
            array_agg(m.tenant_id) FILTER (WHERE m.due_at = '-infinity') AS tenants,
            array_agg(m.partition_id) FILTER (WHERE m.due_at = '-infinity') AS partitions,
            array_agg(m.group_id) FILTER (WHERE m.due_at = '-infinity') AS groups
        FROM moved m
    )
    SELECT r.items, r.reasons, o.ended, o.tenants, o.partitions, o.groups
    INTO refused_items, reasons, ended, rest_tenants, rest_partitions, rest_groups
    FROM refused r, outcome o;

    IF rest_tenants IS NOT NULL THEN
        PERFORM queueing_rest(rest_tenants, rest_partitions, rest_groups);
    END IF;
    RETURN QUERY
    SELECT u.n, 0::bigint, u.why FROM unnest(refused_items, reasons) AS u (n, why)
    UNION ALL
    SELECT 0::bigint, u.k, ''::text FROM unnest(ended) AS u (k);
END $$;
