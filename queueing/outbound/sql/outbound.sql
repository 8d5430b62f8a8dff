-- name: new_of_source
-- What the fan-out has to do for one source: its `unread`, with its name first.
SELECT '{source}'::text, u.* FROM (
{unread}
) u

-- name: owed_of_source
-- A row without tenant if callbacks of the source are owed.
SELECT '{source}'::text, NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint[]
WHERE (
{owed}
) IS NOT NULL

-- name: and_new
{one}
UNION ALL
{other}

-- name: lock
-- Lock these endpoints against other fan-outs. `upto` was read by a statement before this one (the source's `unread`), so all
-- events up to it are committed by the time `events` reads them.
SELECT e.id, e.events::text, e.ordered
FROM queueing_webhookendpoint e
WHERE e.tenant_id = %(tenant)s AND e.id = ANY(%(ids)s::bigint[]) AND e.enabled AND e.deleted_at IS NULL
  AND coalesce((e.positions ->> %(source)s::text)::bigint, 0) = %(after)s
ORDER BY e.id
FOR NO KEY UPDATE SKIP LOCKED;

-- name: owe
-- Make the deliveries of some events to some endpoints. In ordered endpoints the next event of an object is held until the one
-- before is closed; the statement that closes it (`settle`, after `alone`) releases the next.
WITH event AS (
    SELECT * FROM unnest(%(message)b::text[], %(position)b::bigint[], %(subject)b::uuid[], %(type)b::text[], %(body)b::text[])
        WITH ORDINALITY AS e (message_id, position, subject, type, body, n)
), owed AS (
    SELECT o.endpoint_id, o.ordered, e.*, o.ordered AND (
        row_number() OVER (PARTITION BY o.endpoint_id, e.subject ORDER BY e.position) > 1
        OR EXISTS (
            SELECT FROM queueing_webhookdelivery d
            WHERE d.subject = e.subject AND d.endpoint_id + 0 = o.endpoint_id AND d.tenant_id + 0 = %(tenant)s AND d.ordered
                AND coalesce(d.closed, '') = ''
        )
    ) AS held
    FROM unnest(%(endpoint)b::bigint[], %(nth)b::bigint[], %(ordered)b::boolean[]) AS o (endpoint_id, n, ordered)
    JOIN event e USING (n)
    WHERE o.endpoint_id BETWEEN 1 AND 9223372036854775807
)
INSERT INTO queueing_webhookdelivery (tenant_id, endpoint_id, message_id, position, subject, type, body, ordered, status, run_at)
SELECT %(tenant)s, endpoint_id, message_id, position, subject, type, body, ordered,
    CASE WHEN held THEN 'held' ELSE 'pending' END, CASE WHEN held THEN '9999-12-31Z'::timestamptz ELSE now() END
FROM owed ORDER BY endpoint_id, position;

-- name: move
UPDATE queueing_webhookendpoint SET positions = positions || jsonb_build_object(%(source)s::text, %(upto)s::bigint)
WHERE tenant_id = %(tenant)s AND id = ANY(%(ids)s::bigint[]);

-- name: wake
SELECT pg_notify('webhooks', '');

-- name: receivers
-- The receivers of callbacks at these origins, whose ids are derived from the origins, made where there are none. Those that exist are changed, so that `trim_endpoints`
-- leaves them until the caller has committed their deliveries. In order, against deadlocks.
INSERT INTO queueing_webhookendpoint (tenant_id, uuid, url, events, positions, secrets, callback)
SELECT tenant_id, uuid, origin, '[]', '{}', '', true
FROM unnest(%(tenant)b::bigint[], %(uuid)b::uuid[], %(origin)b::text[]) AS t (tenant_id, uuid, origin)
ORDER BY tenant_id, origin
ON CONFLICT (uuid, tenant_id) DO UPDATE SET changed_at = now()
RETURNING tenant_id, url, id;

-- name: owe_callbacks
INSERT INTO queueing_webhookdelivery (tenant_id, endpoint_id, message_id, position, subject, type, body, callback_url)
SELECT * FROM unnest(
    %(tenant)b::bigint[], %(endpoint)b::bigint[], %(message)b::text[], %(position)b::bigint[], %(subject)b::uuid[], %(type)b::text[],
    %(body)b::text[], %(url)b::text[]
);

-- name: make_job_secrets
-- Of two processes that make the secret of a tenant at the same time one succeeds, and both use what it stored.
INSERT INTO queueing_jobsecret (tenant_id, sealed)
SELECT * FROM unnest(%(tenant)b::bigint[], %(sealed)b::bytea[]) AS t (tenant_id, sealed) ORDER BY tenant_id
ON CONFLICT (tenant_id) DO NOTHING;

-- name: job_secret
SELECT sealed FROM queueing_jobsecret WHERE tenant_id = %(tenant)s;

-- name: signing_of
-- What an `http` job is sent with: the tenant's mode, and its job secret.
SELECT t.mode, s.sealed FROM registry_tenant t LEFT JOIN queueing_jobsecret s ON s.tenant_id = t.id WHERE t.id = %(tenant)s;

-- name: due
-- Endpoints with due deliveries, in random order. One index probe per endpoint with open rows, and one for its first due row.
-- `above` and `below`: see work.sql.
WITH RECURSIVE waiting AS (
    (
        SELECT tenant_id, endpoint_id FROM queueing_webhookdelivery
        WHERE closed IS NULL AND run_at >= coalesce(now() - make_interval(secs => %(above)s::float8), '-infinity')
        ORDER BY tenant_id, endpoint_id LIMIT 1
    )
    UNION ALL
    SELECT n.tenant_id, n.endpoint_id
    FROM waiting w CROSS JOIN LATERAL (
        SELECT d.tenant_id, d.endpoint_id FROM queueing_webhookdelivery d
        WHERE d.closed IS NULL AND (d.tenant_id, d.endpoint_id) > (w.tenant_id, w.endpoint_id)
          AND d.run_at >= coalesce(now() - make_interval(secs => %(above)s::float8), '-infinity')
        ORDER BY d.tenant_id, d.endpoint_id LIMIT 1
    ) n
)
SELECT e.tenant_id, e.id
FROM waiting w
CROSS JOIN LATERAL (
    SELECT * FROM queueing_webhookendpoint e WHERE e.tenant_id = w.tenant_id AND e.id = w.endpoint_id OFFSET 0
) e
WHERE e.enabled AND e.deleted_at IS NULL AND (e.rest_until IS NULL OR e.rest_until <= now()) AND (
    SELECT true FROM queueing_webhookdelivery d
    WHERE d.tenant_id = w.tenant_id AND d.endpoint_id = w.endpoint_id AND d.closed IS NULL
      AND d.run_at >= coalesce(now() - make_interval(secs => %(above)s::float8), '-infinity')
      AND d.run_at <= now() - make_interval(secs => %(below)s::float8) AND (d.leased_until IS NULL OR d.leased_until < now())
    ORDER BY d.priority DESC, d.run_at, d.id LIMIT 1
)
ORDER BY random()
LIMIT %(limit)s;

-- name: takeable
-- Whether a worker may take a delivery, as in `due` and `take`: what is owed to an endpoint that is off, or asked for a rest, waits for
-- that and not for workers.
(tenant_id, endpoint_id) NOT IN (
    SELECT e.tenant_id, e.id FROM queueing_webhookendpoint e
    WHERE NOT e.enabled OR e.deleted_at IS NOT NULL OR e.rest_until > now()
);

-- name: take
-- Lease due deliveries of these endpoints, at most `quota` of each. MATERIALIZED: else the planner may repeat the LIMIT. Callbacks
-- are signed with the tenant's job secret.
WITH found AS MATERIALIZED (
    SELECT p.id, e.tenant_id, e.uuid, e.url, CASE WHEN e.callback THEN coalesce(s.sealed, '') ELSE e.secrets END AS secrets, t.mode
    FROM unnest(%(tenants)s::bigint[], %(endpoints)s::bigint[], %(quotas)s::bigint[]) AS q (tenant_id, endpoint_id, quota)
    CROSS JOIN LATERAL (
        SELECT * FROM queueing_webhookendpoint e WHERE e.tenant_id = q.tenant_id AND e.id = q.endpoint_id OFFSET 0
    ) e
    JOIN registry_tenant t ON t.id = e.tenant_id
    LEFT JOIN queueing_jobsecret s ON e.callback AND s.tenant_id = e.tenant_id
    CROSS JOIN LATERAL (
        SELECT d.id FROM queueing_webhookdelivery d
        WHERE d.tenant_id = q.tenant_id AND d.endpoint_id = q.endpoint_id AND d.closed IS NULL
          AND d.run_at >= coalesce(now() - make_interval(secs => %(above)s::float8), '-infinity')
          AND d.run_at <= now() AND (d.leased_until IS NULL OR d.leased_until < now())
        ORDER BY d.priority DESC, d.run_at, d.id
        LIMIT q.quota
        FOR UPDATE SKIP LOCKED
    ) p
    WHERE e.enabled AND e.deleted_at IS NULL AND (e.rest_until IS NULL OR e.rest_until <= now())
)
UPDATE queueing_webhookdelivery d
SET attempt = d.attempt + 1, lease_id = %(worker)s, leased_until = now() + make_interval(secs => %(lease)s)
FROM found f
WHERE f.tenant_id BETWEEN 1 AND 9223372036854775807 AND d.tenant_id = f.tenant_id AND d.id = f.id
RETURNING d.tenant_id, d.id, d.endpoint_id, d.message_id, d.type, d.body, d.attempt, d.tries_from, d.ordered, d.created_at,
    f.uuid, f.url, f.secrets, f.mode, d.callback_url, d.subject;

-- name: alone
-- Lock these endpoints before deliveries of ordered ones are closed: a fan-out under way has then committed the deliveries that
-- it holds behind them.
SELECT id FROM queueing_webhookendpoint
WHERE (tenant_id, id) IN (SELECT * FROM unnest(%(tenants)s::bigint[], %(ids)s::bigint[]))
ORDER BY tenant_id, id
FOR NO KEY UPDATE;

-- name: settle
-- Write the outcomes of attempts, fenced by worker and number: the delivery's state, the attempt, the release of the next
-- delivery in order, and whether the endpoint fails. The endpoint is written only when that changes, so endpoints that work
-- need no lock; several are locked in order.
WITH input AS MATERIALIZED (
    SELECT tenant_id, delivery_id, number, status, wait, rest, nullif(answer, 0) AS answer, error, signed_at, signature, headers,
        body, latency
    FROM unnest(
        %(tenant)b::bigint[], %(delivery)b::bigint[], %(number)b::bigint[], %(status)b::text[], %(wait)b::float8[],
        %(rest)b::float8[], %(answer)b::bigint[], %(error)b::text[], %(signed_at)b::timestamptz[], %(signature)b::text[],
        %(headers)b::text[], %(body)b::text[], %(latency)b::bigint[]
    ) AS t (tenant_id, delivery_id, number, status, wait, rest, answer, error, signed_at, signature, headers, body, latency)
    WHERE tenant_id BETWEEN 1 AND 9223372036854775807
), settled AS (
    UPDATE queueing_webhookdelivery d
    SET status = i.status, run_at = CASE WHEN i.wait IS NULL THEN d.run_at ELSE now() + make_interval(secs => i.wait) END,
        answer = i.answer, error = i.error, lease_id = NULL, leased_until = NULL, changed_at = now()
    FROM input i
    WHERE d.tenant_id = i.tenant_id AND d.id = i.delivery_id
      AND d.attempt = i.number AND d.lease_id = %(worker)s AND coalesce(d.closed, '') = ''
    RETURNING d.endpoint_id, d.subject, d.ordered, i.*
), logged AS (
    INSERT INTO queueing_webhookattempt
        (tenant_id, delivery_id, number, at, signed_at, signature, answer, headers, body, latency_ms, error)
    SELECT tenant_id, delivery_id, number, now(), signed_at, signature, answer, headers::jsonb, body, latency, error FROM settled
), next AS (
    UPDATE queueing_webhookdelivery n
    SET status = 'pending', run_at = now(), changed_at = now()
    FROM (
        SELECT DISTINCT h.tenant_id, h.id
        FROM settled s
        CROSS JOIN LATERAL (
            SELECT w.tenant_id, w.id FROM queueing_webhookdelivery w
            WHERE w.subject = s.subject AND w.endpoint_id + 0 = s.endpoint_id AND w.tenant_id + 0 = s.tenant_id
              AND w.ordered AND w.status = 'held'
            ORDER BY w.id LIMIT 1
        ) h
        WHERE s.ordered AND s.status IN ('delivered', 'dead')
    ) h
    WHERE n.tenant_id = h.tenant_id AND n.id = h.id
    RETURNING n.id
), judged AS (
    SELECT tenant_id, endpoint_id, bool_or(status = 'delivered') AS good, max(rest) AS rest
    FROM settled GROUP BY tenant_id, endpoint_id
), standing AS MATERIALIZED (
    SELECT e.tenant_id, e.id, e.failing_since, j.good, j.rest
    FROM queueing_webhookendpoint e
    JOIN judged j ON j.tenant_id = e.tenant_id AND j.endpoint_id = e.id
), changed AS MATERIALIZED (
    SELECT e.tenant_id, e.id, s.good, s.rest
    FROM queueing_webhookendpoint e
    JOIN standing s ON s.tenant_id = e.tenant_id AND s.id = e.id AND ((s.failing_since IS NULL) <> s.good OR s.rest IS NOT NULL)
    ORDER BY e.tenant_id, e.id
    FOR NO KEY UPDATE OF e
), marked AS (
    UPDATE queueing_webhookendpoint e
    SET failing_since = CASE WHEN c.good THEN NULL ELSE coalesce(e.failing_since, now()) END,
        rest_until = CASE WHEN c.rest IS NULL THEN e.rest_until ELSE now() + make_interval(secs => c.rest) END
    FROM changed c
    WHERE e.tenant_id = c.tenant_id AND e.id = c.id
)
SELECT s.tenant_id, s.delivery_id, coalesce(NOT g.good AND g.failing_since < now() - make_interval(secs => %(patience)s) AND EXISTS (
        SELECT FROM queueing_webhookdelivery o  -- a second delivery must have failed too: the event may be at fault
        WHERE o.tenant_id = s.tenant_id AND o.endpoint_id = s.endpoint_id AND o.id <> s.delivery_id
          AND o.error <> '' AND o.status <> 'delivered' AND o.changed_at >= g.failing_since
    ), false),
    (SELECT count(*) FROM next) > 0
FROM settled s
LEFT JOIN standing g ON g.tenant_id = s.tenant_id AND g.id = s.endpoint_id;

-- name: give_back
-- Give back deliveries that a stopping worker has not finished: they may have arrived, and are sent again under the same id.
UPDATE queueing_webhookdelivery d
SET lease_id = NULL, leased_until = NULL, run_at = now(), tries_from = d.tries_from + 1
FROM unnest(%(tenant)b::bigint[], %(delivery)b::bigint[], %(number)b::bigint[]) AS i (tenant_id, id, number)
WHERE i.tenant_id BETWEEN 1 AND 9223372036854775807 AND d.tenant_id = i.tenant_id AND d.id = i.id AND d.attempt = i.number
  AND d.lease_id = %(worker)s AND coalesce(d.closed, '') = '';

-- name: failing
SELECT id FROM queueing_webhookendpoint WHERE failing_since IS NOT NULL AND enabled AND deleted_at IS NULL;

-- name: trim_deliveries
-- Remove deliveries that were closed `days` ago, and those of deleted endpoints. It reads only the oldest few of each endpoint:
-- called again while it removes some.
WITH old AS (
    SELECT d.tenant_id, d.id
    FROM queueing_webhookendpoint e
    CROSS JOIN LATERAL (
        SELECT w.tenant_id, w.id, w.closed, w.changed_at FROM queueing_webhookdelivery w
        WHERE w.endpoint_id = e.id AND w.tenant_id + 0 = e.tenant_id
        ORDER BY w.id LIMIT %(each)s
    ) d
    WHERE e.deleted_at IS NOT NULL OR (d.closed IS NOT NULL AND d.changed_at < now() - make_interval(days => %(days)s::int))
    LIMIT %(limit)s
), attempts AS (
    DELETE FROM queueing_webhookattempt a USING old WHERE a.tenant_id = old.tenant_id AND a.delivery_id = old.id
)
DELETE FROM queueing_webhookdelivery d USING old WHERE d.tenant_id = old.tenant_id AND d.id = old.id
RETURNING d.id;

-- name: trim_endpoints
-- Remove deleted endpoints, and receivers of callbacks, that have no delivery any more. A callback that is owed at the same moment
-- changes its receiver's row, which this statement then reads again and leaves.
DELETE FROM queueing_webhookendpoint e
WHERE (e.deleted_at < now() - interval '1 hour' OR e.callback AND e.changed_at < now() - interval '1 hour') AND NOT EXISTS (
    SELECT FROM queueing_webhookdelivery d WHERE d.endpoint_id = e.id AND d.tenant_id + 0 = e.tenant_id
);

-- name: replay
-- Deliver closed deliveries again from the first attempt, under the same id. Open ones stay as they are. In ordered endpoints
-- one event of an object at a time, as when they were new.
WITH chosen AS MATERIALIZED (
    SELECT d.tenant_id, d.id, d.subject, d.ordered
    FROM queueing_webhookdelivery d
    WHERE d.endpoint_id = %(endpoint)s AND d.tenant_id + 0 = %(tenant)s AND d.closed IN ('delivered', 'dead')
      AND d.id >= coalesce((SELECT min(i) FROM unnest(%(ids)s::bigint[]) AS i), 0)
      AND d.id <= coalesce((SELECT max(i) FROM unnest(%(ids)s::bigint[]) AS i), 9223372036854775807)
      AND (%(ids)s::bigint[] IS NULL OR d.id = ANY(%(ids)s::bigint[]))
      AND (%(since)s::timestamptz IS NULL OR d.created_at >= %(since)s::timestamptz)
      AND (%(until)s::timestamptz IS NULL OR d.created_at <= %(until)s::timestamptz)
      AND (NOT %(dead)s::boolean OR d.closed = 'dead')
      AND d.id > %(after)s AND (%(unchanged)s::timestamptz IS NULL OR d.changed_at < %(unchanged)s::timestamptz)
    ORDER BY d.id
    LIMIT %(limit)s
    FOR UPDATE
), placed AS MATERIALIZED (
    SELECT c.tenant_id, c.id, c.ordered AND c.subject IS NOT NULL AND (
        row_number() OVER (PARTITION BY c.subject ORDER BY c.id) > 1
        OR EXISTS (
            SELECT FROM queueing_webhookdelivery o
            WHERE o.subject = c.subject AND o.endpoint_id + 0 = %(endpoint)s AND o.tenant_id + 0 = %(tenant)s AND o.ordered
                AND coalesce(o.closed, '') = ''
        )
    ) AS held
    FROM chosen c
)
UPDATE queueing_webhookdelivery d
SET status = CASE WHEN p.held THEN 'held' ELSE 'pending' END,
    run_at = CASE WHEN p.held THEN '9999-12-31Z'::timestamptz ELSE now() END,
    tries_from = d.attempt, changed_at = now()
FROM placed p
WHERE d.tenant_id = p.tenant_id AND d.id = p.id
RETURNING d.id;

-- name: replayable
SELECT count(*) FROM (
    SELECT FROM queueing_webhookdelivery d
    WHERE d.endpoint_id = %(endpoint)s AND d.tenant_id + 0 = %(tenant)s AND d.closed IN ('delivered', 'dead')
      AND d.id >= coalesce((SELECT min(i) FROM unnest(%(ids)s::bigint[]) AS i), 0)
      AND d.id <= coalesce((SELECT max(i) FROM unnest(%(ids)s::bigint[]) AS i), 9223372036854775807)
      AND (%(ids)s::bigint[] IS NULL OR d.id = ANY(%(ids)s::bigint[]))
      AND (%(since)s::timestamptz IS NULL OR d.created_at >= %(since)s::timestamptz)
      AND (%(until)s::timestamptz IS NULL OR d.created_at <= %(until)s::timestamptz)
      AND (NOT %(dead)s::boolean OR d.closed = 'dead')
      AND d.id > %(after)s AND (%(unchanged)s::timestamptz IS NULL OR d.changed_at < %(unchanged)s::timestamptz)
    LIMIT %(limit)s
) found;

-- name: create
INSERT INTO queueing_webhookendpoint (tenant_id, uuid, url, description, events, ordered, enabled, positions, secrets)
SELECT %(tenant)s, %(uuid)s, %(url)s, %(description)s, %(events)s::jsonb, %(ordered)s, %(enabled)s, %(positions)s::jsonb, %(secrets)s
WHERE (SELECT count(*) FROM queueing_webhookendpoint WHERE tenant_id = %(tenant)s AND deleted_at IS NULL AND NOT callback) < %(most)s
RETURNING id;

-- name: insert
-- Insert a delivery without an event: a test message, or a note in the endpoint's log.
INSERT INTO queueing_webhookdelivery (tenant_id, endpoint_id, message_id, type, body, status, priority, error)
VALUES (%(tenant)s, %(endpoint)s, %(message)s, %(type)s, %(body)s, %(status)s, 9, %(error)s)
RETURNING id;

-- name: standings
-- Open and dead deliveries per endpoint, counted up to a thousand each.
SELECT e.id,
    (SELECT count(*) FROM (
        SELECT FROM queueing_webhookdelivery d WHERE d.tenant_id = e.tenant_id AND d.endpoint_id = e.id AND d.closed IS NULL
        ORDER BY d.priority DESC, d.run_at, d.id LIMIT 1000
    ) w),
    (SELECT count(*) FROM (
        SELECT FROM queueing_webhookdelivery d WHERE d.endpoint_id = e.id AND d.tenant_id + 0 = e.tenant_id AND d.closed = 'dead'
        ORDER BY d.id LIMIT 1000
    ) x)
FROM queueing_webhookendpoint e
WHERE e.tenant_id = %(tenant)s AND e.id = ANY(%(ids)s::bigint[]);

-- name: close_tenant
-- Delete all endpoints of a tenant that is closed: nothing is sent to them any more.
UPDATE queueing_webhookendpoint SET enabled = false, deleted_at = coalesce(deleted_at, now()), changed_at = now()
WHERE tenant_id = %(tenant)s AND deleted_at IS NULL;
