-- name: limits
-- Of this transaction. Compiling a plan takes longer than the search may take.
SELECT set_config('statement_timeout', %(limit)s::text, true), set_config('jit', 'off', true);

-- name: search
-- A page of the console's list, newest first: what matches all filters among the candidates of one source. Planned each time
-- (prepare=False), with the parameters' values, so that only the branch of that source is left:
--   newest, refunded: in order of their index, `most` rows behind the cursor; `ends` is the last one that is looked at.
--   open, exceptions, disputes: all rows of a partial index; none where they are more than `most`, which the second column tells.
--   attention: `most` rows of each reason.
--   ids: these payments.
-- The source `newest` has in addition what the searched text identifies: payments by the beginning of their id, and by the
-- reference of an attempt, a refund or a dispute; `identified` of them at most.
WITH disputed AS MATERIALIZED (
    SELECT payment_id, bool_or(closed_at IS NULL) AS open, bool_or(closed_at IS NOT NULL AND withdrawn > 0) AS lost
    FROM payments_dispute WHERE tenant_id = %(tenant)s GROUP BY payment_id
), referenced AS MATERIALIZED (
    (SELECT payment_id AS id FROM payments_attempt
     WHERE reference = %(reference)s AND reference > ' ' AND tenant_id + 0 = %(tenant)s LIMIT %(identified)s)
    UNION ALL
    (SELECT payment_id FROM payments_refund
     WHERE reference = %(reference)s AND reference > '' AND tenant_id + 0 = %(tenant)s LIMIT %(identified)s)
    UNION ALL
    (SELECT payment_id FROM payments_dispute
     WHERE reference = %(reference)s AND tenant_id + 0 = %(tenant)s LIMIT %(identified)s)
), keyed AS MATERIALIZED (
    (SELECT id FROM payments_payment
     WHERE %(source)s = 'open' AND tenant_id = %(tenant)s AND closed IS NULL
     ORDER BY priority DESC, run_at, id LIMIT %(most)s + 1)
    UNION ALL
    (SELECT id FROM payments_payment
     WHERE %(source)s = 'exceptions' AND tenant_id = %(tenant)s AND closed = %(status)s
         AND closed IN ('failed', 'canceled', 'requires_action')
     ORDER BY id DESC LIMIT %(most)s + 1)
    UNION ALL
    (SELECT payment_id FROM payments_dispute
     WHERE %(source)s = 'disputes' AND tenant_id = %(tenant)s AND (closed_at IS NULL OR withdrawn > 0)
     ORDER BY id DESC LIMIT %(most)s + 1)
    UNION ALL
    (SELECT id FROM payments_payment
     WHERE %(source)s = 'attention' AND tenant_id = %(tenant)s AND closed IS NULL AND in_doubt_since IS NOT NULL
         AND in_doubt_since < now() - interval '5 minutes'  -- before that it is asked about, which mostly ends the doubt
     ORDER BY run_at, id LIMIT %(most)s + 1)
    UNION ALL
    (SELECT payment_id FROM payments_deadletter
     WHERE %(source)s = 'attention' AND tenant_id = %(tenant)s AND resolution = '' ORDER BY id DESC LIMIT %(most)s + 1)
    UNION ALL
    (SELECT payment_id FROM payments_dispute
     WHERE %(source)s = 'attention' AND tenant_id = %(tenant)s AND closed_at IS NULL AND status LIKE '%%needs_response'
     ORDER BY id DESC LIMIT %(most)s + 1)
    UNION ALL
    (SELECT payment_id FROM payments_refund
     WHERE %(source)s = 'attention' AND tenant_id = %(tenant)s AND closed IS NULL AND stopped_at IS NOT NULL
     ORDER BY priority DESC, run_at, id LIMIT %(most)s + 1)
    UNION ALL
    (SELECT id FROM payments_payment
     WHERE %(source)s = 'ids' AND correlation_id = ANY(%(ids)s::uuid[]) AND tenant_id + 0 = %(tenant)s)
    UNION ALL
    (SELECT id FROM payments_payment
     WHERE %(source)s = 'newest' AND correlation_id BETWEEN %(first_id)s AND %(last_id)s AND tenant_id + 0 = %(tenant)s
     LIMIT %(identified)s)
    UNION ALL
    (SELECT id FROM referenced WHERE %(source)s = 'newest')
), ends AS MATERIALIZED (
    (SELECT created_at, id FROM payments_payment
     WHERE %(source)s = 'newest' AND tenant_id = %(tenant)s AND created_at > '0001-01-01 00:00:00+00'
         AND created_at >= %(since)s AND created_at <= %(until)s AND (created_at, id) < (%(before_at)s, %(before_id)s)
     ORDER BY created_at DESC, id DESC OFFSET %(most)s - 1 LIMIT 1)
    UNION ALL
    (SELECT created_at, id FROM payments_payment
     WHERE %(source)s = 'refunded' AND tenant_id = %(tenant)s AND refunded > 0
         AND created_at >= %(since)s AND created_at <= %(until)s AND (created_at, id) < (%(before_at)s, %(before_id)s)
     ORDER BY created_at DESC, id DESC OFFSET %(most)s - 1 LIMIT 1)
), candidates AS (
    (SELECT * FROM payments_payment
     WHERE %(source)s = 'newest' AND tenant_id = %(tenant)s AND created_at > '0001-01-01 00:00:00+00'
         AND created_at >= %(since)s AND created_at <= %(until)s AND (created_at, id) < (%(before_at)s, %(before_id)s)
     ORDER BY created_at DESC, id DESC LIMIT %(most)s)
    UNION ALL
    (SELECT * FROM payments_payment
     WHERE %(source)s = 'refunded' AND tenant_id = %(tenant)s AND refunded > 0
         AND created_at >= %(since)s AND created_at <= %(until)s AND (created_at, id) < (%(before_at)s, %(before_id)s)
     ORDER BY created_at DESC, id DESC LIMIT %(most)s)
    UNION ALL
    SELECT p.* FROM (SELECT DISTINCT id FROM keyed) k
    CROSS JOIN LATERAL (SELECT * FROM payments_payment p WHERE p.tenant_id = %(tenant)s AND p.id = k.id OFFSET 0) p
    WHERE ((SELECT count(*) FROM keyed) <= %(most)s OR %(source)s IN ('attention', 'ids', 'newest'))
        AND (%(source)s <> 'newest' OR (p.created_at, p.id) < (SELECT created_at, id FROM ends))  -- the others are among the newest
), matched AS MATERIALIZED (
    SELECT p.created_at, p.id FROM candidates p
    WHERE p.created_at >= %(since)s AND p.created_at <= %(until)s AND (p.created_at, p.id) < (%(before_at)s, %(before_id)s)
        AND (%(ids)s::uuid[] IS NULL OR p.correlation_id = ANY(%(ids)s::uuid[]))
        AND (%(status)s::text IS NULL OR p.status = %(status)s)
        AND (%(currency)s::text IS NULL OR p.currency = %(currency)s)
        AND CASE %(shown)s::text
            WHEN 'succeeded' THEN p.refunded <= 0 AND p.id NOT IN (SELECT d.payment_id FROM disputed d WHERE d.open OR d.lost)
            WHEN 'partly_refunded' THEN p.refunded > 0 AND p.refunded < p.amount
                AND p.id NOT IN (SELECT d.payment_id FROM disputed d WHERE d.open OR d.lost)
            WHEN 'refunded' THEN p.refunded >= p.amount
                AND p.id NOT IN (SELECT d.payment_id FROM disputed d WHERE d.open OR d.lost)
            WHEN 'disputed' THEN p.id IN (SELECT d.payment_id FROM disputed d WHERE d.open)
            WHEN 'dispute_lost' THEN p.id IN (SELECT d.payment_id FROM disputed d WHERE d.lost AND NOT d.open)
            ELSE true
        END
        AND (%(least)s::bigint[] IS NULL OR p.amount >= (%(least)s::bigint[])[1 + CASE
            WHEN p.currency = ANY(%(decimals_0)s::text[]) THEN 0 WHEN p.currency = ANY(%(decimals_3)s::text[]) THEN 3
            WHEN p.currency = ANY(%(decimals_4)s::text[]) THEN 4 ELSE 2 END])
        AND (%(largest)s::bigint[] IS NULL OR p.amount <= (%(largest)s::bigint[])[1 + CASE
            WHEN p.currency = ANY(%(decimals_0)s::text[]) THEN 0 WHEN p.currency = ANY(%(decimals_3)s::text[]) THEN 3
            WHEN p.currency = ANY(%(decimals_4)s::text[]) THEN 4 ELSE 2 END])
        AND (%(processor)s::text IS NULL OR (SELECT r.name FROM payments_processor r WHERE r.id = coalesce(p.processor_id,
            (SELECT a.processor_id FROM payments_attempt a
             WHERE a.tenant_id = %(tenant)s AND a.payment_id = p.id AND a.number = p.attempt))) = %(processor)s)
        AND (%(words)s::text[] IS NULL
            OR p.correlation_id BETWEEN %(first_id)s AND %(last_id)s
            OR p.id IN (SELECT id FROM referenced)
            OR p.amount = (%(exactly)s::bigint[])[1 + CASE
                WHEN p.currency = ANY(%(decimals_0)s::text[]) THEN 0 WHEN p.currency = ANY(%(decimals_3)s::text[]) THEN 3
                WHEN p.currency = ANY(%(decimals_4)s::text[]) THEN 4 ELSE 2 END]
            -- The names in the metadata are left out only where its text has all words: taking it apart costs ten times as much.
            OR CASE WHEN concat(p.description, ' ', p.metadata::text) ILIKE ALL (%(coarse_words)s::text[]) THEN
                concat(p.description, ' ', (SELECT string_agg(m.value, ' ') FROM jsonb_each_text(p.metadata) m))
                ILIKE ALL (%(words)s::text[]) END)
), page AS (
    SELECT created_at, id FROM matched ORDER BY created_at DESC, id DESC LIMIT %(limit)s + 1
)
SELECT (SELECT count(*) FROM matched), (SELECT count(*) FROM keyed), e.created_at, e.id,
    p.correlation_id, p.status, p.amount, p.currency, r.name, p.attempt, p.changed_at, p.sequence, p.created_at, p.id,
    p.description, p.metadata, p.fee, p.refunded, coalesce(d.open, false), coalesce(d.lost, false)
FROM (SELECT 1) once
LEFT JOIN page ON true
LEFT JOIN LATERAL (
    SELECT * FROM payments_payment p WHERE p.tenant_id = %(tenant)s AND p.id = page.id OFFSET 0
) p ON true
LEFT JOIN payments_attempt a ON a.tenant_id = %(tenant)s AND a.payment_id = p.id AND a.number = p.attempt
LEFT JOIN payments_processor r ON r.id = coalesce(p.processor_id, a.processor_id)
LEFT JOIN LATERAL (
    SELECT bool_or(closed_at IS NULL) AS open, bool_or(closed_at IS NOT NULL AND withdrawn > 0) AS lost
    FROM payments_dispute WHERE payment_id = p.id AND tenant_id + 0 = %(tenant)s AND p.status = 'succeeded'
) d ON true
LEFT JOIN ends e ON true
ORDER BY p.created_at DESC, p.id DESC;

-- name: count
-- The payments of these times, as far as `most`.
SELECT count(*) FROM (
    SELECT 1 FROM payments_payment
    WHERE tenant_id = %(tenant)s AND created_at > '0001-01-01 00:00:00+00' AND created_at >= %(since)s AND created_at <= %(until)s
    LIMIT %(most)s
) counted;
