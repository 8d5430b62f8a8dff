-- name: rates
-- Tenants that have a sample rate of their own. Processes that trace read this every few seconds; there are few tenants beside what
-- they own, and the whole table is read.
SELECT id, trace_rate FROM registry_tenant WHERE trace_rate IS NOT NULL;
