-- What Django's models cannot say about the tables of the message queue and of outbound webhooks: keys, storage, an index on jsonb.

-- Primary keys lead with the tenant, so that the tables can be distributed by tenant.
ALTER TABLE queueing_deadmessage DROP CONSTRAINT queueing_deadmessage_pkey, ADD PRIMARY KEY (tenant_id, id);
ALTER TABLE queueing_trace DROP CONSTRAINT queueing_trace_pkey, ADD PRIMARY KEY (tenant_id, id);
ALTER TABLE queueing_webhookendpoint DROP CONSTRAINT queueing_webhookendpoint_pkey, ADD PRIMARY KEY (tenant_id, id);
ALTER TABLE queueing_webhookdelivery DROP CONSTRAINT queueing_webhookdelivery_pkey, ADD PRIMARY KEY (tenant_id, id);

-- Small, and changed by every push, pop and ack: room on the page for in-place (HOT) updates, and a vacuum after a number of
-- changes instead of after a share of the table.
ALTER TABLE queueing_partition SET (
    fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
ALTER TABLE queueing_consumer SET (
    fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

-- Large: vacuumed after a number of changes too, else the share of a large table would come far too late.
ALTER TABLE queueing_message SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 500000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 20000);

-- Traces are searched by the names that they carry.
CREATE INDEX trace_names ON queueing_trace USING gin(names jsonb_path_ops);

-- Webhooks. A claim changes no indexed column of a delivery: with room on the page it costs no index entry.
ALTER TABLE queueing_webhookdelivery SET (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 250000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 20000);
ALTER TABLE queueing_webhookattempt SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 250000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 20000);
-- A few rows, changed many times a second.
ALTER TABLE queueing_webhookendpoint SET (
    fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
