-- Functions of the message queue: push, reschedule (queueing_rest), complete and claim, each in one round trip.
--
-- Why functions: every statement in a function sees what was committed before that statement began. After a statement has locked
-- a row, the next one sees the row's latest state; a single statement would use its older snapshot.
--
-- Every table is accessed by its key, for named rows. Plans are made once per connection, perhaps while the tables are empty, and
-- must stay right as the tables grow:
--   - no sequential scans, hash joins or merge joins; parameters are addressed by array position instead of being joined;
--   - a message is looked up by transaction id and partition, without the tenant (the locked partition's row belongs to the
--     tenant). With the tenant, the primary key looks as good as the right index while the table is small, and a plan made then
--     reads the whole partition;
--   - for the same reason partitions and groups are looked up by number alone: `tenant_id + 0` is a filter, not an index
--     condition;
--   - a named consumer is filtered by `coalesce(due_at <= …, false)`. A plain comparison implies that due_at is not NULL, which
--     makes the partial index of a group's due consumers usable, and that would be read from end to end for one row;
--   - rows that were locked before are named by `= ANY` alone: while few rows are `idle`, a plan that starts from these and joins
--     the parameters looks cheap as well.

-- Push: insert messages, numbered under the lock of their partition's row, so that numbers become visible in order. `slots` gives
-- each message's position in `partitions`. Returns the messages that were not inserted: 'duplicate' with the id of the message
-- that has the transaction id; 'gone' where the partition was dropped; 'changed' where the queue requires what the caller did not
-- do (encrypt, check the maximum size).
CREATE OR REPLACE FUNCTION queueing_push(
    tenants bigint[], partitions bigint[], slots bigint[], ids uuid[], transactions text[], payloads bytea[], keys text[],
    traces uuid[], producers text[], counted boolean
) RETURNS TABLE (item bigint, original uuid, reason text) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    moment timestamptz;
    lasts bigint[];  -- number of each partition's latest message; -1 where there is no such partition
    needs bigint[];  -- what each partition's queue requires: 1 encryption, 2 a check of its maximum size
    idle_slots bigint[];  -- partitions for whose next message some group waits
BEGIN
    SELECT array_agg(coalesce(h.last_seq, -1) ORDER BY u.slot), array_agg(coalesce(h.needs, 0) ORDER BY u.slot),
        array_agg(u.slot) FILTER (WHERE h.idle)
    INTO lasts, needs, idle_slots
    FROM unnest(tenants, partitions) WITH ORDINALITY AS u (t, p, slot)
    LEFT JOIN LATERAL (
        SELECT p.last_seq, p.idle, (
            SELECT q.encrypted::int + CASE WHEN q.max_size > 0 THEN 2 ELSE 0 END
            FROM queueing_queue q WHERE q.id = p.queue_id
        ) AS needs
        FROM queueing_partition p
        WHERE p.id = u.p AND p.tenant_id + 0 = u.t AND p.queue_id IS NOT NULL
        FOR UPDATE
    ) h ON true;
    moment := clock_timestamp();

    RETURN QUERY
    WITH checked AS MATERIALIZED (
        SELECT u.*, first_value(u.id) OVER (PARTITION BY u.slot, u.transaction_id ORDER BY u.n) AS first, (
            SELECT m.id FROM queueing_message m
            WHERE m.transaction_id = u.transaction_id AND m.partition_id = partitions[u.slot]
        ) AS known,
        CASE WHEN lasts[u.slot] < 0 THEN 'gone'
            WHEN needs[u.slot] & 1 > 0 AND u.key_id IS NULL OR needs[u.slot] & 2 > 0 AND NOT counted THEN 'changed' END AS why
        FROM unnest(slots, ids, transactions, payloads, keys, traces, producers)
            WITH ORDINALITY AS u (slot, id, transaction_id, payload, key_id, trace_id, producer, n)
    ), fresh AS MATERIALIZED (
        SELECT t.*, row_number() OVER (PARTITION BY t.slot ORDER BY t.n) AS place
        FROM checked t WHERE t.known IS NULL AND t.first = t.id AND t.why IS NULL
    ), moved AS (
        UPDATE queueing_partition p SET last_seq = p.last_seq + c.added, last_at = moment, idle = false
        FROM (SELECT f.slot, count(*) AS added FROM fresh f GROUP BY 1) c
        WHERE p.id = partitions[c.slot] AND p.tenant_id + 0 = tenants[c.slot]
    ), added AS (
        INSERT INTO queueing_message (
            tenant_id, partition_id, seq, id, transaction_id, payload, key_id, trace_id, producer, created_at
        )
        SELECT tenants[f.slot], partitions[f.slot], lasts[f.slot] + f.place, f.id, f.transaction_id, f.payload, f.key_id,
            f.trace_id, f.producer, moment
        FROM fresh f
    )
    SELECT t.n, CASE WHEN t.known IS NOT NULL THEN t.known WHEN t.why IS NULL THEN t.first END,
        CASE WHEN t.known IS NULL AND t.why IS NOT NULL THEN t.why ELSE 'duplicate' END
    FROM checked t WHERE t.known IS NOT NULL OR t.first <> t.id OR t.why IS NOT NULL;

    IF idle_slots IS NOT NULL THEN
        UPDATE queueing_partition p SET idle = false
        WHERE p.id = ANY(ARRAY(SELECT partitions[u.slot] FROM unnest(idle_slots) AS u (slot))) AND p.idle;
        UPDATE queueing_consumer c SET due_at = moment + (
            SELECT q.delay_seconds * interval '1 second' FROM queueing_queue q
            WHERE q.id = (SELECT p.queue_id FROM queueing_partition p WHERE p.id = c.partition_id AND p.tenant_id + 0 = c.tenant_id)
        )
        FROM unnest(idle_slots) AS u (slot)
        WHERE c.tenant_id = tenants[u.slot] AND c.partition_id = partitions[u.slot] AND c.due_at IS NULL;
    END IF;
END $$;

-- Reschedule: compute when these consumers have a message to read next; NULL where everything is read. Leased consumers stay as
-- they are. The partition's lock keeps pushes out meanwhile: one that commits later finds `idle` and makes the consumers due.
-- Where a push holds the lock (SKIP LOCKED), the consumer stays due, and the next pop reschedules it again.
CREATE OR REPLACE FUNCTION queueing_rest(tenants bigint[], partitions bigint[], groups bigint[])
RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    held bigint[];
    resting bigint[];
BEGIN
    SELECT array_agg(h.id) INTO held FROM (
        SELECT p.id FROM (SELECT DISTINCT u.t, u.p FROM unnest(tenants, partitions) AS u (t, p)) w
        JOIN queueing_partition p ON p.id = w.p AND p.tenant_id + 0 = w.t
        FOR UPDATE OF p SKIP LOCKED
    ) h;
    UPDATE queueing_consumer c SET due_at = clock_timestamp()
    FROM unnest(tenants, partitions, groups) AS u (t, p, g)
    WHERE c.tenant_id = u.t AND c.partition_id = u.p AND c.group_id = u.g AND c.lease_id IS NULL
        AND coalesce(c.due_at <= clock_timestamp() + interval '1 second', false) AND (held IS NULL OR u.p <> ALL(held));
    IF held IS NULL THEN
        RETURN;
    END IF;
    WITH one AS MATERIALIZED (
        SELECT c.tenant_id, c.partition_id, c.group_id, c.cursor, c.buried, p.last_seq, p.last_at, q.ttl_seconds, q.delay_seconds,
            q.window_seconds
        FROM unnest(tenants, partitions, groups) AS u (t, p, g)
        JOIN queueing_consumer c ON c.tenant_id = u.t AND c.partition_id = u.p AND c.group_id = u.g
        JOIN queueing_partition p ON p.id = u.p AND p.tenant_id + 0 = u.t
        JOIN queueing_queue q ON q.tenant_id + 0 = u.t AND q.id = p.queue_id
        WHERE u.p = ANY(held) AND c.lease_id IS NULL AND coalesce(c.due_at <= clock_timestamp() + interval '1 second', false)
        FOR UPDATE OF c SKIP LOCKED
    ), next AS (
        SELECT o.*, m.seq, m.created_at
        FROM one o
        LEFT JOIN LATERAL (
            SELECT m.seq, m.created_at FROM queueing_message m
            WHERE m.tenant_id = o.tenant_id AND m.partition_id = o.partition_id AND m.seq > o.cursor
                AND (o.ttl_seconds = 0 OR m.created_at > clock_timestamp() - o.ttl_seconds * interval '1 second')
                AND (o.buried <= o.cursor OR NOT EXISTS (
                    SELECT FROM queueing_deadmessage b
                    WHERE b.tenant_id + 0 = o.tenant_id AND b.partition_id = o.partition_id AND b.group_id = o.group_id
                        AND b.seq = m.seq
                ))
            ORDER BY m.seq LIMIT 1
        ) m ON true
    ), moved AS (
        UPDATE queueing_consumer c SET
            cursor = greatest(c.cursor, coalesce(n.seq - 1, n.last_seq)),
            attempt = CASE WHEN coalesce(n.seq - 1, n.last_seq) > c.cursor THEN 0 ELSE c.attempt END,
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
        UPDATE queueing_partition p SET idle = true WHERE p.id = ANY(resting) AND NOT p.idle;
    END IF;
END $$;

-- Complete: move the cursors of leased consumers past these messages. A key is one lease on one partition; `owners` gives each
-- message's position in the keys. Most readers ack what they got, in its order: then one scan from the cursor on finds the messages
-- of a key, instead of a look-up for each. Returns the refused messages with their reason, and (item 0) the keys whose lease ended, with
-- 'more' where the partition has messages left.
CREATE OR REPLACE FUNCTION queueing_complete(
    tenants bigint[], partitions bigint[], names text[], leases uuid[], owners bigint[], transactions text[]
) RETURNS TABLE (item bigint, key bigint, reason text) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    moment timestamptz := clock_timestamp();
    groups bigint[];  -- of each key; -1 where its lease is not live
    cursors bigint[];
    ends bigint[];  -- number of the latest message delivered under each key's lease
    lasts bigint[];  -- number of each key's last message if its messages are those after the cursor, in order; else -1
    buried bigint[];  -- number of the latest dead letter of each key's consumer
    delays bigint[];
    refused bigint[];
    reasons text[];
    ended bigint[];
    more boolean[];
    over_tenants bigint[];
    over_partitions bigint[];
    over_groups bigint[];
BEGIN
    SELECT array_agg(coalesce(h.group_id, -1) ORDER BY u.k), array_agg(coalesce(h.cursor, 0) ORDER BY u.k),
        array_agg(coalesce(h.delivered, 0) ORDER BY u.k), array_agg(coalesce(h.buried, 0) ORDER BY u.k),
        array_agg(coalesce(h.delay, 0) ORDER BY u.k)
    INTO groups, cursors, ends, buried, delays
    FROM unnest(tenants, partitions, names, leases) WITH ORDINALITY AS u (t, p, name, lease, k)
    LEFT JOIN LATERAL (
        SELECT c.group_id, c.cursor, c.delivered, c.buried, (SELECT q.delay_seconds FROM queueing_queue q WHERE q.id = g.queue_id) AS delay
        FROM queueing_consumer c
        JOIN queueing_group g ON g.id = c.group_id AND g.tenant_id + 0 = c.tenant_id
        WHERE c.tenant_id = u.t AND c.partition_id = u.p AND c.lease_id = u.lease AND g.name = u.name
            AND coalesce(c.due_at > moment, false)
        FOR UPDATE OF c
    ) h ON true;

    SELECT array_agg(CASE WHEN s.ids = a.ids THEN s.seq ELSE -1 END ORDER BY a.k) INTO lasts
    FROM (
        SELECT u.k, array_agg(u.transaction_id ORDER BY u.n) AS ids, count(*) AS size
        FROM unnest(owners, transactions) WITH ORDINALITY AS u (k, transaction_id, n)
        GROUP BY u.k
    ) a
    CROSS JOIN LATERAL (
        SELECT max(m.seq) AS seq, array_agg(m.transaction_id::text ORDER BY m.seq) AS ids
        FROM (
            SELECT m.seq, m.transaction_id FROM queueing_message m
            WHERE m.tenant_id = tenants[a.k] AND m.partition_id = partitions[a.k] AND m.seq > cursors[a.k] AND m.seq <= ends[a.k]
            ORDER BY m.seq LIMIT a.size
        ) m
    ) s;

    WITH known AS MATERIALIZED (
        SELECT u.n, u.k, (
            SELECT m.seq FROM queueing_message m
            WHERE m.transaction_id = u.transaction_id AND m.partition_id = partitions[u.k]
        ) AS seq
        FROM unnest(owners, transactions) WITH ORDINALITY AS u (k, transaction_id, n)
        WHERE lasts[u.k] < 0
    ), found AS MATERIALIZED (
        SELECT i.n, i.k, CASE WHEN groups[i.k] > 0 AND i.seq <= ends[i.k] THEN i.seq END AS seq FROM known i
    ), done AS MATERIALIZED (
        SELECT f.k, max(f.seq) AS seq FROM found f WHERE f.seq IS NOT NULL GROUP BY f.k
        UNION ALL
        SELECT u.k, u.seq FROM unnest(lasts) WITH ORDINALITY AS u (seq, k) WHERE u.seq > 0
    ), passed AS MATERIALIZED (  -- also past dead letters that follow directly
        SELECT d.k, CASE WHEN buried[d.k] <= d.seq THEN d.seq ELSE greatest(d.seq, least(ends[d.k], (
            SELECT m.seq - 1 FROM queueing_message m
            WHERE m.tenant_id = tenants[d.k] AND m.partition_id = partitions[d.k] AND m.seq > d.seq AND NOT EXISTS (
                SELECT FROM queueing_deadmessage b
                WHERE b.tenant_id + 0 = m.tenant_id AND b.partition_id = m.partition_id AND b.group_id = groups[d.k]
                    AND b.seq = m.seq
            )
            ORDER BY m.seq LIMIT 1
        ))) END AS seq
        FROM done d
    ), moved AS (
        UPDATE queueing_consumer c SET
            cursor = greatest(c.cursor, t.seq),
            consumed = c.consumed + greatest(t.seq - c.cursor, 0),
            consumed_at = moment,
            attempt = CASE WHEN t.seq > c.cursor THEN 0 ELSE c.attempt END,
            lease_id = CASE WHEN t.seq < c.delivered THEN c.lease_id END,
            due_at = CASE WHEN t.seq < c.delivered THEN c.due_at WHEN c.buried > c.delivered THEN '-infinity' ELSE coalesce((
                SELECT m.created_at + delays[t.k] * interval '1 second' FROM queueing_message m
                WHERE m.tenant_id = c.tenant_id AND m.partition_id = c.partition_id AND m.seq > c.delivered
                ORDER BY m.seq LIMIT 1
            ), '-infinity') END
        FROM passed t
        WHERE c.tenant_id = tenants[t.k] AND c.partition_id = partitions[t.k] AND c.group_id = groups[t.k]
        RETURNING t.k, c.tenant_id, c.partition_id, c.group_id, c.lease_id, c.due_at
    )
    SELECT r.items, r.reasons, o.ended, o.more, o.tenants, o.partitions, o.groups
    INTO refused, reasons, ended, more, over_tenants, over_partitions, over_groups
    FROM (
        SELECT array_agg(f.n) AS items,
            array_agg(CASE WHEN groups[f.k] < 0 THEN 'Invalid or expired lease' ELSE 'Message not found' END) AS reasons
        FROM found f WHERE f.seq IS NULL
    ) r, (
        SELECT array_agg(m.k) FILTER (WHERE m.lease_id IS NULL) AS ended,
            array_agg(m.due_at <> '-infinity') FILTER (WHERE m.lease_id IS NULL) AS more,
            array_agg(m.tenant_id) FILTER (WHERE m.due_at = '-infinity') AS tenants,
            array_agg(m.partition_id) FILTER (WHERE m.due_at = '-infinity') AS partitions,
            array_agg(m.group_id) FILTER (WHERE m.due_at = '-infinity') AS groups
        FROM moved m
    ) o;

    IF over_tenants IS NOT NULL THEN
        PERFORM queueing_rest(over_tenants, over_partitions, over_groups);
    END IF;
    RETURN QUERY
    SELECT u.n, 0::bigint, u.why FROM unnest(refused, reasons) AS u (n, why)
    UNION ALL
    SELECT 0::bigint, u.k, CASE WHEN u.more OR (
        SELECT c.due_at IS NOT NULL FROM queueing_consumer c
        WHERE c.tenant_id = tenants[u.k] AND c.partition_id = partitions[u.k] AND c.group_id = groups[u.k]
    ) THEN 'more' ELSE '' END
    FROM unnest(ended, more) AS u (k, more);
END $$;

-- Claim: lease due partitions. `source_sets` with `groups` and `partitions` say where to look (a group of a queue, or one partition
-- of it), slots say what to fill: each takes one partition, up to `size` messages per request; the slots of a request are
-- consecutive. The partition that has waited longest comes first, within priority. A lease that expired counts as an attempt. A
-- partition without attempts left is delivered message by message, to find the poison message, which kills its readers (`kills`).
-- A slot without a lease completes its messages at once. Rows without a message report partitions that had nothing to read: the
-- caller reschedules them.
CREATE OR REPLACE FUNCTION queueing_claim(
    source_sets bigint[], tenants bigint[], groups bigint[], partitions bigint[], priorities bigint[], counts bigint[],
    slot_sets bigint[], places bigint[], requests bigint[], sizes bigint[], leases uuid[]
) RETURNS TABLE (
    request bigint, tenant_id bigint, queue_id bigint, group_id bigint, partition_id bigint, partition_name varchar,
    kills boolean, tries int, seq bigint, id uuid, transaction_id varchar, trace_id uuid, payload bytea, key_id varchar,
    producer varchar, created_at timestamptz
) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH source AS MATERIALIZED (
        SELECT * FROM unnest(source_sets, tenants, groups, partitions, priorities, counts)
            AS l (source_set, tenant_id, group_id, partition_id, priority, slots)
    ), slot AS MATERIALIZED (
        SELECT * FROM unnest(slot_sets, places, requests, sizes, leases) AS s (source_set, place, request, size, lease)
    ), any_partition AS MATERIALIZED (
        SELECT l.source_set, l.priority, c.*
        FROM source l
        CROSS JOIN LATERAL (
            SELECT * FROM queueing_consumer k
            WHERE l.partition_id IS NULL AND k.tenant_id = l.tenant_id AND k.group_id = l.group_id AND k.due_at <= now()
            ORDER BY k.due_at LIMIT l.slots
            FOR UPDATE SKIP LOCKED
        ) c
    ), one_partition AS MATERIALIZED (
        SELECT l.source_set, l.priority, c.*
        FROM source l
        CROSS JOIN LATERAL (
            SELECT * FROM queueing_consumer k
            WHERE k.tenant_id = l.tenant_id AND k.partition_id = l.partition_id AND k.group_id = l.group_id
                AND coalesce(k.due_at <= now(), false)
            FOR UPDATE SKIP LOCKED
        ) c
    ), taken AS (
        SELECT t.*, row_number() OVER (PARTITION BY t.source_set ORDER BY t.priority DESC, t.due_at, t.partition_id) AS place
        FROM (SELECT * FROM any_partition UNION ALL SELECT * FROM one_partition) t
    ), due AS MATERIALIZED (
        SELECT t.*, s.request, s.size, s.lease AS new_lease, p.name AS partition_name, p.last_seq, q.id AS queue_id,
            q.lease_seconds, q.ttl_seconds, q.delay_seconds,
            q.window_seconds > 0 AND p.last_at + q.window_seconds * interval '1 second' > now() AS hidden,
            t.attempt + (t.lease_id IS NOT NULL)::int AS tries,
            t.lease_id IS NOT NULL AND q.dead_letter_after_retries AND t.attempt >= q.retry_limit AS spent
        FROM taken t
        JOIN slot s ON s.source_set = t.source_set AND s.place = t.place
        JOIN queueing_partition p ON p.id = t.partition_id AND p.tenant_id + 0 = t.tenant_id
        JOIN queueing_queue q ON q.id = p.queue_id
    ), sized AS (
        SELECT d.*, least(
            CASE WHEN d.hidden THEN 0 WHEN d.spent OR d.singly > d.cursor THEN 1 ELSE d.size END,
            d.size - coalesce(sum(CASE WHEN d.hidden THEN 0 ELSE greatest(d.last_seq - d.cursor, 0) END) OVER earlier, 0)
        )::bigint AS room
        FROM due d
        WINDOW earlier AS (PARTITION BY d.request ORDER BY d.place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
    ), filled AS MATERIALIZED (
        SELECT * FROM sized WHERE room > 0 OR hidden
    ), got AS MATERIALIZED (
        SELECT f.request, f.place AS slot_place, f.tenant_id, f.queue_id, f.group_id, f.partition_id, f.partition_name,
            f.spent AND (f.singly > f.cursor OR f.delivered <= f.cursor + 1) AS kills, f.tries,
            m.*
        FROM filled f
        CROSS JOIN LATERAL (
            SELECT m.seq, m.id, m.transaction_id, m.trace_id, m.payload, m.key_id, m.producer, m.created_at
            FROM queueing_message m
            WHERE m.tenant_id = f.tenant_id AND m.partition_id = f.partition_id AND m.seq > f.cursor
                AND (f.delay_seconds = 0 OR m.created_at <= now() - f.delay_seconds * interval '1 second')
                AND (f.ttl_seconds = 0 OR m.created_at > now() - f.ttl_seconds * interval '1 second')
                AND (f.buried <= f.cursor OR NOT EXISTS (
                    SELECT FROM queueing_deadmessage b
                    WHERE b.tenant_id + 0 = f.tenant_id AND b.partition_id = f.partition_id AND b.group_id = f.group_id
                        AND b.seq = m.seq
                ))
            ORDER BY m.seq LIMIT greatest(f.room, 0)
        ) m
    ), ends AS MATERIALIZED (
        SELECT g.partition_id, g.group_id, max(g.seq) AS last, count(*) AS messages FROM got g GROUP BY 1, 2
    ), all_filled AS MATERIALIZED (
        SELECT f.*, e.last, e.messages
        FROM filled f LEFT JOIN ends e ON e.partition_id = f.partition_id AND e.group_id = f.group_id
    ), leased AS (
        UPDATE queueing_consumer c SET
            cursor = CASE WHEN f.new_lease IS NULL THEN coalesce(f.last, c.cursor) ELSE c.cursor END,
            consumed = c.consumed + CASE WHEN f.new_lease IS NULL THEN coalesce(f.messages, 0) ELSE 0 END,
            consumed_at = CASE WHEN f.new_lease IS NULL THEN now() ELSE c.consumed_at END,
            delivered = coalesce(f.last, c.delivered),
            attempt = CASE WHEN f.new_lease IS NULL THEN 0 ELSE f.tries END,
            singly = CASE WHEN f.spent AND c.singly <= c.cursor THEN c.delivered ELSE c.singly END,
            lease_id = CASE WHEN f.last IS NOT NULL THEN f.new_lease END,
            -- the caller reschedules it within the second for which no other pop claims it
            due_at = CASE WHEN f.last IS NOT NULL AND f.new_lease IS NOT NULL
                THEN now() + f.lease_seconds * interval '1 second' ELSE now() + interval '1 second' END
        FROM all_filled f
        WHERE c.tenant_id = f.tenant_id AND c.partition_id = f.partition_id AND c.group_id = f.group_id
    ), answer AS (
        SELECT * FROM got
        UNION ALL
        SELECT f.request, f.place, f.tenant_id, f.queue_id, f.group_id, f.partition_id, f.partition_name, false, f.tries,
            NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
        FROM all_filled f WHERE f.last IS NULL
    )
    SELECT t.request, t.tenant_id, t.queue_id, t.group_id, t.partition_id, t.partition_name, t.kills, t.tries, t.seq, t.id,
        t.transaction_id, t.trace_id, t.payload, t.key_id, t.producer, t.created_at
    FROM answer t
    ORDER BY t.request, t.slot_place, t.seq;
END $$;
