-- name: beat
-- A host reports: by the server's clock, so that those of the hosts need not agree.
INSERT INTO registry_host AS h (name, place, role, version, address, keys, clock_offset, processes)
VALUES (
    %(name)s::text, %(place)s::text, %(role)s::text, %(version)s::text, %(address)s::text, %(keys)s::jsonb,
    %(clock_offset)s::float8, %(processes)s::jsonb
)
ON CONFLICT (name) DO UPDATE SET
    place = excluded.place, role = excluded.role, version = excluded.version, address = excluded.address, keys = excluded.keys,
    started_at = CASE WHEN %(first)s::boolean THEN now() ELSE h.started_at END,
    heartbeat_at = now(), clock_offset = excluded.clock_offset, processes = excluded.processes;

-- name: leave
-- A host was stopped: it is neither silent nor missed, and nobody evaluates the rules of its own.
WITH gone AS (DELETE FROM registry_host WHERE name = %(name)s::text AND place = %(place)s::text RETURNING name)
DELETE FROM registry_alertwatch WHERE host IN (SELECT name FROM gone);

-- name: forget
-- Hosts that have been silent for so long that they will not come back.
WITH gone AS (
    DELETE FROM registry_host WHERE heartbeat_at < now() - make_interval(secs => %(after)s::float8) RETURNING name
)
DELETE FROM registry_alertwatch WHERE host IN (SELECT name FROM gone);

-- name: clock
-- The server's clock, in seconds.
SELECT extract(epoch FROM clock_timestamp())::float8;
