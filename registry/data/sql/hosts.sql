-- name: timeline
-- The number of the history that a primary writes: each promotion of a standby begins a new one, with a larger number.
SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int;
