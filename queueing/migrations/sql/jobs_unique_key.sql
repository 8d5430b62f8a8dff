-- Made beside writes, and made anew if this was cut off: without a lock that writes wait for. The old index is dropped last.
DROP INDEX CONCURRENTLY IF EXISTS job_open_key;

CREATE UNIQUE INDEX CONCURRENTLY job_open_key ON queueing_job (unique_key, tenant_id, kind)
WHERE closed IS NULL AND unique_key IS NOT NULL;

DROP INDEX CONCURRENTLY IF EXISTS job_unique_key;
