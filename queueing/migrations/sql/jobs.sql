-- What Django's models cannot say about the tables of background jobs: keys and storage.

-- The primary keys lead with the tenant, so that the tables can be distributed by tenant.
ALTER TABLE queueing_job DROP CONSTRAINT queueing_job_pkey, ADD PRIMARY KEY (tenant_id, id);
ALTER TABLE queueing_jobschedule DROP CONSTRAINT queueing_jobschedule_pkey, ADD PRIMARY KEY (tenant_id, id);

-- A claim changes no indexed column of a job: with room on the page it costs no index entry. Vacuumed after a number of changes,
-- because a share of a large table would come far too late.
ALTER TABLE queueing_job SET (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 250000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 20000);
ALTER TABLE queueing_jobevent SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 500000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 20000);

-- Few rows, changed by every batch.
ALTER TABLE queueing_jobstream SET (
    fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
