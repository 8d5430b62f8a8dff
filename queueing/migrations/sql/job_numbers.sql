-- Numbers of a tenant's job events (docs/decisions/053), as migrations/sql/numbers.sql of payments has them: without gaps, in the order
-- of commits, and without a new version of the stream's row. `position` of that row is a number that no deleted event is above.

CREATE FUNCTION queueing_job_number(tenant bigint, events bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    deleted bigint;
    latest bigint;
BEGIN
    SELECT s.position INTO deleted FROM queueing_jobstream s WHERE s.tenant_id = tenant FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        INSERT INTO queueing_jobstream (tenant_id, position) VALUES (tenant, 0) ON CONFLICT (tenant_id) DO NOTHING;
        SELECT s.position INTO deleted FROM queueing_jobstream s WHERE s.tenant_id = tenant FOR NO KEY UPDATE;
    END IF;
    SELECT e.position INTO latest FROM queueing_jobevent e
    WHERE e.tenant_id = tenant AND e.position > deleted ORDER BY e.position DESC LIMIT 1;
    RETURN coalesce(latest, deleted) + events;
END $$;

CREATE VIEW queueing_job_latest AS
SELECT s.tenant_id, coalesce(e.position, s.position) AS position
FROM queueing_jobstream s
LEFT JOIN LATERAL (
    SELECT e.position FROM queueing_jobevent e
    WHERE e.tenant_id = s.tenant_id AND e.position > s.position ORDER BY e.position DESC LIMIT 1
) e ON true;
