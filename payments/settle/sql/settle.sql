-- name: columns
-- Of a claimed row `p`.
p.tenant_id, p.id, p.correlation_id, p.amount, p.currency, p.status, p.attempt, p.tries_from, p.wanted_processor,
    coalesce(greatest(p.in_doubt_since, p.leased_until), now()), p.created_at, a.processor_id, a.requested_at,
    extract(epoch FROM now() - coalesce(greatest(p.in_doubt_since, p.leased_until), now()))::float8,
    p.description, p.method, coalesce(a.reference, ''), p.canceling, p.leased_until IS NULL AND p.in_doubt_since IS NOT NULL,
    extract(epoch FROM now() - greatest(p.created_at, p.scheduled_for))::float8;

-- name: joins
-- A settlement clears leased_until. Where it is set, the last attempt was interrupted, and the doubt starts at its end.
LEFT JOIN payments_attempt a ON a.tenant_id = p.tenant_id AND a.payment_id = p.id AND a.number = p.attempt;

-- name: take_divided
-- The statement `take` of the template for workers that take, or leave, the payments of some processors (`parts` their names,
-- `accounts` their ids; `included`: they are those that this worker takes). A payment in doubt belongs to its processor, one with a
-- wish to that one; `first`: whether other payments of the tenant would be sent to one of this worker's now.
SELECT {columns}
FROM unnest(%(tenants)s::bigint[], %(quotas)s::bigint[], %(firsts)s::boolean[]) AS t (tenant_id, quota, first)
CROSS JOIN LATERAL (
    SELECT * FROM payments_payment p
    WHERE p.tenant_id = t.tenant_id AND closed IS NULL
      AND p.run_at >= coalesce(now() - make_interval(secs => %(above)s::float8), '-infinity')
      AND p.run_at <= now() AND (p.leased_until IS NULL OR p.leased_until < now())
      AND CASE
        WHEN p.status <> 'queued' THEN %(included)s = coalesce((
            SELECT d.processor_id = ANY(%(accounts)s::bigint[]) FROM payments_attempt d
            WHERE d.tenant_id = p.tenant_id AND d.payment_id = p.id AND d.number = p.attempt
        ), false)
        WHEN p.wanted_processor = '' THEN t.first
        ELSE %(included)s = (p.wanted_processor = ANY(%(parts)s::text[]))
      END
    ORDER BY p.priority DESC, p.run_at, p.id
    LIMIT t.quota
    FOR UPDATE SKIP LOCKED
) p
{joins};

-- name: begin
-- Store the attempt, its processor, requestedAt and reason before anything is sent. Updates no indexed column of the payment, so
-- the update is HOT. Runs in the transaction that locked the rows.
-- BETWEEN, here and elsewhere, is true for every tenant. It makes the planner expect one row and use the index; for a hundred rows
-- it would scan the whole table if that was small when the plan was made (docs/decisions/024). For the same reason parts of a statement
-- that belong together row by row have a FULL JOIN, here and elsewhere: it is done by a hash or a sort, where the planner, which
-- expects one row, would compare all pairs of two hundred.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        %(tenant)b::bigint[], %(payment)b::bigint[], %(number)b::bigint[], %(status)b::text[], %(changed)b::boolean[],
        %(processor)b::bigint[], %(requested_at)b::timestamptz[], %(reason)b::text[], %(in_doubt_since)b::timestamptz[],
        %(reference)b::text[]
    ) AS t (tenant_id, payment_id, number, status, changed, processor_id, requested_at, reason, in_doubt_since, reference)
    WHERE tenant_id BETWEEN 1 AND 9223372036854775807
), begun AS (
    UPDATE payments_payment p
    SET status = i.status, sequence = p.sequence + i.changed::int, attempt = i.number, in_doubt_since = i.in_doubt_since,
        lease_id = %(worker)s, leased_until = now() + make_interval(secs => %(lease)s),
        changed_at = CASE WHEN i.changed THEN now() ELSE p.changed_at END
    FROM input i
    WHERE p.tenant_id = i.tenant_id AND p.id = i.payment_id
    RETURNING p.tenant_id, p.id AS payment_id, p.sequence, p.status, i.number, i.processor_id, i.reason, i.changed
), attempts AS (
    INSERT INTO payments_attempt (tenant_id, payment_id, number, processor_id, reason, requested_at, worker_id, started_at, outcome, code, reference)
    SELECT tenant_id, payment_id, number, processor_id, reason, requested_at, %(worker)s, now(), '', '', reference FROM input
), numbered AS MATERIALIZED (
    SELECT tenant_id, payments_number(tenant_id, events) AS position
    FROM (SELECT tenant_id, count(*) AS events FROM begun WHERE changed GROUP BY tenant_id ORDER BY tenant_id OFFSET 0) t
)
INSERT INTO payments_paymentevent (tenant_id, position, payment_id, sequence, status, processor_id, attempt, at, detail)
SELECT b.tenant_id, n.position - row_number() OVER (PARTITION BY b.tenant_id ORDER BY b.payment_id DESC) + 1,
    b.payment_id, b.sequence, b.status, b.processor_id, b.number, now(), b.reason
FROM (SELECT * FROM begun WHERE changed) b FULL JOIN numbered n ON n.tenant_id = b.tenant_id
RETURNING tenant_id, payment_id, position, sequence, at;

-- name: in_doubt
-- Claim payments with unknown outcome even when every processor of the tenant is unavailable: a status look-up needs no route.
-- By their own partial index; in the normal flow a claim updates none of its columns, so that the update is HOT. `accounts`: where
-- payments are divided between pools, as in `take_divided`; NULL: they are not.
SELECT {columns}
FROM unnest(%(tenants)s::bigint[], %(free)s::bigint[]) AS t (tenant_id, free)
CROSS JOIN LATERAL (
    SELECT * FROM payments_payment p
    WHERE p.tenant_id = t.tenant_id AND p.in_doubt_since IS NOT NULL AND p.closed IS NULL
      AND p.run_at <= now() AND (p.leased_until IS NULL OR p.leased_until < now())
      AND (%(accounts)s::bigint[] IS NULL OR %(included)s = coalesce((
          SELECT d.processor_id = ANY(%(accounts)s::bigint[]) FROM payments_attempt d
          WHERE d.tenant_id = p.tenant_id AND d.payment_id = p.id AND d.number = p.attempt
      ), false))
    ORDER BY p.run_at, p.id
    LIMIT greatest(t.free, 0)
    FOR UPDATE SKIP LOCKED
) p
{joins}
LIMIT %(limit)s;

-- name: by_id
-- Lock payments by id if they are due and no worker has leased them. By the unique index.
SELECT {columns}
FROM unnest(%(tenant)b::bigint[], %(correlation)b::uuid[]) AS t (tenant_id, correlation_id)
CROSS JOIN LATERAL (
    SELECT * FROM payments_payment p
    WHERE p.correlation_id = t.correlation_id AND p.tenant_id + 0 = t.tenant_id AND p.status IN ('queued', 'processing', 'uncertain')
      AND p.run_at <= now() AND (p.leased_until IS NULL OR p.leased_until < now())
    FOR UPDATE SKIP LOCKED
) p
{joins};

-- name: abandon
-- Mark first sends whose lease has expired as in doubt from its end. Only for tenants whose rows are not claimed otherwise: it
-- reads all of their open rows.
UPDATE payments_payment SET in_doubt_since = leased_until
WHERE (tenant_id, id) IN (
    SELECT p.tenant_id, p.id
    FROM unnest(%(tenants)s::bigint[]) AS t (tenant_id)
    CROSS JOIN LATERAL (
        SELECT * FROM payments_payment o
        WHERE o.tenant_id = t.tenant_id AND o.closed IS NULL AND o.status = 'processing'
          AND o.in_doubt_since IS NULL AND o.leased_until < now()
        ORDER BY o.priority DESC, o.run_at, o.id  -- the order of the index of open rows: no other is as cheap
        FOR UPDATE SKIP LOCKED
    ) p
);

-- name: postpone
-- Postpone payments without an available processor. The longer a payment has waited, the longer until it is due again.
UPDATE payments_payment p
SET run_at = now() + make_interval(secs => least(30, greatest(%(seconds)s, extract(epoch FROM now() - created_at) / 8)))
FROM unnest(%(tenant)b::bigint[], %(payment)b::bigint[]) AS t (tenant_id, id)
WHERE t.tenant_id BETWEEN 1 AND 9223372036854775807 AND p.tenant_id = t.tenant_id AND p.id = t.id;

-- name: wait
-- Postpone payments whose processor has no free slot by so many seconds. When the tenant's patience ends, they are sent to another
-- processor.
UPDATE payments_payment p SET run_at = now() + make_interval(secs => w.seconds)
FROM unnest(%(tenant)s::bigint[], %(payment)s::bigint[], %(seconds)s::float8[]) AS w (tenant_id, payment_id, seconds)
WHERE w.tenant_id BETWEEN 1 AND 9223372036854775807 AND p.tenant_id = w.tenant_id AND p.id = w.payment_id;

-- name: again
(i.status = 'requires_action' AND p.run_at > p.leased_until - make_interval(secs => %(lease)s))

-- name: settle
-- Settle outcomes in one commit: state (compare and set, fenced by worker, attempt and state), attempt, ledger, roll-ups, dead
-- letters, events. Shared rows are locked last and in order: roll-ups by key, those of attempts by key, then streams by tenant.
-- `again`: a payment that requires an action but was made due again during the attempt is looked up once more, because the answer
-- may be older than the change (look_again in lifecycle.sql). It keeps its status, and is in doubt from now on.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        %(tenant)b::bigint[], %(payment)b::bigint[], %(number)b::bigint[], %(status)b::text[], %(changed)b::boolean[],
        %(processor)b::bigint[], %(requested_at)b::timestamptz[], %(fee)b::bigint[], %(outcome)b::text[], %(code)b::text[],
        %(detail)b::text[], %(latency)b::bigint[], %(wait)b::float8[], %(in_doubt_since)b::timestamptz[], %(dead)b::boolean[],
        %(reference)b::text[], %(action)b::text[]
    ) AS t (tenant_id, payment_id, number, status, changed, processor_id, requested_at, fee, outcome, code,
        detail, latency, wait, in_doubt_since, dead, reference, action)
    WHERE tenant_id BETWEEN 1 AND 9223372036854775807
), settled AS (
    UPDATE payments_payment p
    SET status = CASE WHEN {again} THEN p.status ELSE i.status END,
        sequence = p.sequence + (i.changed AND NOT {again})::int,
        code = CASE WHEN i.status = 'succeeded' THEN '' ELSE i.code END,
        processor_id = CASE WHEN i.status = 'succeeded' THEN i.processor_id ELSE p.processor_id END,
        requested_at = CASE WHEN i.status = 'succeeded' THEN i.requested_at ELSE p.requested_at END,
        fee = CASE WHEN i.status = 'succeeded' THEN i.fee ELSE p.fee END,
        in_doubt_since = CASE WHEN i.status = 'uncertain' OR {again} THEN coalesce(i.in_doubt_since, now()) END,
        tries_from = CASE WHEN i.status = 'requires_action' THEN i.number ELSE p.tries_from END,
        run_at = CASE WHEN i.dead AND i.status = 'uncertain' THEN '9999-12-31Z'::timestamptz
            WHEN i.wait IS NULL THEN p.run_at ELSE now() + make_interval(secs => i.wait) END,
        lease_id = NULL, leased_until = NULL,
        changed_at = CASE WHEN i.changed AND NOT {again} THEN now() ELSE p.changed_at END
    FROM input i
    WHERE p.tenant_id = i.tenant_id AND p.id = i.payment_id
      AND p.attempt = i.number AND p.lease_id = %(worker)s AND p.status IN ('processing', 'uncertain')
    RETURNING p.tenant_id, p.id AS payment_id, p.sequence, p.status, p.amount, p.currency,
        i.number, i.changed AND p.status = i.status AS changed, i.processor_id, i.requested_at, i.fee, i.outcome, i.code, i.detail,
        i.latency, i.dead, i.reference, i.action,
        CASE WHEN p.status IN ('succeeded', 'failed')  -- the bucket of the time since acceptance: ln(2)/4 is a quarter of a doubling
            THEN least(127, floor(ln(greatest(1, extract(epoch FROM now() - greatest(p.created_at, p.scheduled_for)) * 1000)::float8)
                / 0.17328679513998632)) ELSE 0 END::smallint AS bucket
), attempts AS (
    UPDATE payments_attempt a SET outcome = s.outcome, code = s.code, latency_ms = s.latency,
        reference = CASE WHEN s.reference = '' THEN a.reference ELSE s.reference END, action = s.action::jsonb
    FROM settled s
    WHERE a.tenant_id = s.tenant_id AND a.payment_id = s.payment_id AND a.number = s.number
), booked AS (
    SELECT * FROM settled WHERE status = 'succeeded'
), ledger AS (
    INSERT INTO payments_ledgerentry (tenant_id, payment_id, processor_id, account, amount, currency, at)
    SELECT b.tenant_id, b.payment_id, b.processor_id, l.account, l.amount, b.currency, now()
    FROM booked b
    CROSS JOIN LATERAL (VALUES ('processor', b.amount), ('fees', -b.fee), ('balance', b.fee - b.amount)) AS l (account, amount)
), dead_letters AS (
    INSERT INTO payments_deadletter (tenant_id, payment_id, code, detail, created_at, resolution, resolved_by)
    SELECT tenant_id, payment_id, code, detail, now(), '', '' FROM settled s
    WHERE dead AND (  -- counted row by row: a join would read all dead letters for every commit
        SELECT count(*) FROM payments_deadletter d
        WHERE d.payment_id = s.payment_id AND d.tenant_id + 0 = s.tenant_id AND d.resolution || '' = ''
    ) = 0
), rolled AS (
    INSERT INTO payments_rollup AS r (tenant_id, width, starts_at, processor_id, currency, payments, amount, fee)
    SELECT b.tenant_id, w.width, to_timestamp(floor(extract(epoch FROM b.requested_at) / w.width) * w.width) AS starts_at,
        b.processor_id, b.currency, count(*), sum(b.amount), sum(b.fee)
    FROM booked b CROSS JOIN (VALUES (1), (3600)) AS w (width)
    GROUP BY 1, 2, 3, 4, 5
    ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (tenant_id, width, starts_at, processor_id, currency) DO UPDATE
    SET payments = r.payments + excluded.payments, amount = r.amount + excluded.amount, fee = r.fee + excluded.fee
    RETURNING 1
), counted AS (
    INSERT INTO payments_attemptrollup AS r (tenant_id, width, starts_at, processor_id, status, bucket, attempts, answers, latency_ms)
    SELECT s.tenant_id, w.width, to_timestamp(floor(extract(epoch FROM now()) / w.width) * w.width) AS starts_at,
        s.processor_id, s.status, s.bucket, count(*), count(s.latency), coalesce(sum(s.latency), 0)
    FROM settled s CROSS JOIN (VALUES (60), (3600)) AS w (width)
    WHERE (SELECT count(*) FROM rolled) >= 0
    GROUP BY 1, 2, 3, 4, 5, 6
    ORDER BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (tenant_id, width, starts_at, processor_id, status, bucket) DO UPDATE
    SET attempts = r.attempts + excluded.attempts, answers = r.answers + excluded.answers,
        latency_ms = r.latency_ms + excluded.latency_ms
    RETURNING 1
), numbered AS MATERIALIZED (
    SELECT tenant_id, payments_number(tenant_id, events) AS position
    FROM (
        SELECT tenant_id, count(*) AS events FROM settled
        WHERE changed AND (SELECT count(*) FROM counted) >= 0  -- the roll-ups' locks come first, always
        GROUP BY tenant_id ORDER BY tenant_id OFFSET 0
    ) t
), events AS (
    INSERT INTO payments_paymentevent (tenant_id, position, payment_id, sequence, status, processor_id, attempt, at, detail)
    SELECT s.tenant_id, n.position - row_number() OVER (PARTITION BY s.tenant_id ORDER BY s.payment_id DESC) + 1,
        s.payment_id, s.sequence, s.status, s.processor_id, s.number, now(), s.detail
    FROM (SELECT * FROM settled WHERE changed) s FULL JOIN numbered n ON n.tenant_id = s.tenant_id
    RETURNING tenant_id, payment_id, position, sequence, at
)
SELECT s.tenant_id, s.payment_id, e.position, e.sequence, e.at
FROM settled s FULL JOIN events e ON e.tenant_id = s.tenant_id AND e.payment_id = s.payment_id;
