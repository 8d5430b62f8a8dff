-- name: read_only
-- Whether the server takes no writes: a standby, or one that was set to read-only.
SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool;
