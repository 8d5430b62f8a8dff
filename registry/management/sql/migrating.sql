-- name: no_time_out
-- The transaction that holds the lock is idle for as long as migrations run.
SET LOCAL idle_in_transaction_session_timeout = 0;

-- name: lock
-- Take the lock of migrations until the end of this transaction, unless another session has it. The key is the word "registry".
SELECT pg_try_advisory_xact_lock(x'7265676973747279'::bigint);

-- name: holder
-- The host that holds the lock of migrations, by the application_name of its session.
SELECT a.application_name
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.classid = x'72656769'::int::oid AND l.objid = x'73747279'::int::oid AND l.objsubid = 1;
