-- Numbers of a tenant's events (docs/decisions/053): without gaps, in the order of commits. The latest one is the latest event's; the
-- tenant's row of payments_stream is only locked for them, which makes no version of it. `position` of that row is where deleted events end.

-- Lock the tenant's stream until the transaction ends, and return the number of the last of so many new events. A VOLATILE function sees
-- what other transactions have committed while it waited for the lock, which a statement does not. Once per statement and tenant.
CREATE FUNCTION payments_number(tenant bigint, events bigint) RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    deleted bigint;
    latest bigint;
BEGIN
    SELECT s.position INTO deleted FROM payments_stream s WHERE s.tenant_id = tenant FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        INSERT INTO payments_stream (tenant_id, position) VALUES (tenant, 0) ON CONFLICT (tenant_id) DO NOTHING;
        SELECT s.position INTO deleted FROM payments_stream s WHERE s.tenant_id = tenant FOR NO KEY UPDATE;
    END IF;
    SELECT e.position INTO latest FROM payments_paymentevent e
    WHERE e.tenant_id = tenant AND e.position > deleted ORDER BY e.position DESC LIMIT 1;
    RETURN coalesce(latest, deleted) + events;
END $$;

-- The number of each tenant's latest event, also if it was deleted.
CREATE VIEW payments_latest AS
SELECT s.tenant_id, coalesce(e.position, s.position) AS position, s.purged_until
FROM payments_stream s
LEFT JOIN LATERAL (
    SELECT e.position FROM payments_paymentevent e
    WHERE e.tenant_id = s.tenant_id AND e.position > s.position ORDER BY e.position DESC LIMIT 1
) e ON true;
