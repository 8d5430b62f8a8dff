-- Purges before this version deleted events without counting them. What is missing now is taken as purged: counting starts anew.
-- The migration holds the table's lock, so that no event is numbered meanwhile.
UPDATE payments_stream s SET purged = s.position - e.stored, purged_until = s.position
FROM (
    SELECT s.tenant_id, (SELECT count(*) FROM payments_paymentevent e WHERE e.tenant_id = s.tenant_id) AS stored
    FROM payments_stream s
) e
WHERE e.tenant_id = s.tenant_id AND e.stored < s.position;
