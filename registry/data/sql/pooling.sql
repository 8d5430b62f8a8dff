-- name: session
-- What a pooler changes: the process that serves the statement, and the settings of its session, in milliseconds.
SELECT pg_backend_pid(), extract(epoch FROM current_setting('statement_timeout')::interval)::float8 * 1000;
