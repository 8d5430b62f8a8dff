-- name: begin
-- The file of a new attempt replaces the one of an earlier attempt. Its chunks are removed with the file's next expiry, which no
-- attempt that still writes reaches.
INSERT INTO queueing_jobfile (tenant_id, job_id, attempt, name, content_type, expires_at)
VALUES (%(tenant)s, %(job)s, %(attempt)s, %(name)s, %(content_type)s, now() + make_interval(secs => %(seconds)s))
ON CONFLICT (tenant_id, job_id) DO UPDATE
SET attempt = excluded.attempt, name = excluded.name, content_type = excluded.content_type, size = 0, expires_at = excluded.expires_at
WHERE queueing_jobfile.attempt <= excluded.attempt;

-- name: append
-- Write a chunk; no row if a later attempt has begun the file anew.
WITH file AS (
    UPDATE queueing_jobfile SET size = size + length(%(data)b)
    WHERE tenant_id = %(tenant)s AND job_id = %(job)s AND attempt = %(attempt)s
    RETURNING tenant_id, job_id, attempt
)
INSERT INTO queueing_jobfilechunk (tenant_id, job_id, attempt, number, data)
SELECT tenant_id, job_id, attempt, %(number)s, %(data)b FROM file
RETURNING number;

-- name: end
-- The file is whole: its time begins.
UPDATE queueing_jobfile SET expires_at = now() + make_interval(secs => %(seconds)s)
WHERE tenant_id = %(tenant)s AND job_id = %(job)s AND attempt = %(attempt)s
RETURNING size;

-- name: chunk
SELECT data FROM queueing_jobfilechunk
WHERE tenant_id = %(tenant)s AND job_id = %(job)s AND attempt = %(attempt)s AND number = %(number)s;

-- name: delete_chunks
-- Delete up to `limit` chunks of files that have expired or that a later attempt has replaced.
DELETE FROM queueing_jobfilechunk c USING (
    SELECT c.tenant_id, c.job_id, c.attempt, c.number
    FROM queueing_jobfilechunk c
    LEFT JOIN queueing_jobfile f ON f.tenant_id = c.tenant_id AND f.job_id = c.job_id
    WHERE f.job_id IS NULL OR f.attempt <> c.attempt OR f.expires_at < now()
    LIMIT %(limit)s
) x
WHERE c.tenant_id = x.tenant_id AND c.job_id = x.job_id AND c.attempt = x.attempt AND c.number = x.number
RETURNING c.number;

-- name: delete_files
-- Delete expired files, once all of their chunks are deleted.
DELETE FROM queueing_jobfile f
WHERE f.expires_at < now() AND NOT EXISTS (
    SELECT FROM queueing_jobfilechunk c WHERE c.tenant_id = f.tenant_id AND c.job_id = f.job_id
);
