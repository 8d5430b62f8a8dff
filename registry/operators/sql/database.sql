-- name: connections
-- Connections of clients, and the most that ordinary roles may open.
SELECT count(*)::int, current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
FROM pg_stat_activity WHERE backend_type = 'client backend';

-- name: snapshot
-- The oldest snapshot that some session holds: VACUUM cannot remove what was deleted since. Nobody's statement is shown.
SELECT pid, xact_start, coalesce(state, ''), coalesce(application_name, ''), extract(epoch FROM now() - xact_start)::float8
FROM pg_stat_activity
WHERE backend_xmin IS NOT NULL AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
    AND backend_type IN ('client backend', 'walsender', 'parallel worker')
ORDER BY xact_start LIMIT 1;

-- name: replicas
-- Connected replicas: bytes and seconds that they are behind. None on a standby, which has no position to compare with.
SELECT coalesce(nullif(application_name, ''), pid::text), state,
    pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN replay_lsn ELSE pg_current_wal_lsn() END, replay_lsn)::bigint,
    coalesce(extract(epoch FROM replay_lag), 0)::float8
FROM pg_stat_replication ORDER BY 3 DESC NULLS LAST LIMIT 20;

-- name: slots
-- Replication slots that nobody reads, with the bytes of WAL that they keep on the disk.
SELECT slot_name::text, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
FROM pg_replication_slots
WHERE NOT active AND restart_lsn IS NOT NULL AND NOT pg_is_in_recovery()
ORDER BY 2 DESC LIMIT 20;

-- name: clock
-- The time by the database's clock, in seconds since 1970.
SELECT extract(epoch FROM clock_timestamp())::float8;
