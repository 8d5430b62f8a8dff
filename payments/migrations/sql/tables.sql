-- What Django's models cannot say about the tables of payments: keys that lead with the tenant, and storage.

-- Primary keys lead with the tenant, so that the tables can be distributed by tenant.
ALTER TABLE payments_payment DROP CONSTRAINT payments_payment_pkey, ADD PRIMARY KEY (tenant_id, id);
ALTER TABLE payments_ledgerentry DROP CONSTRAINT payments_ledgerentry_pkey, ADD PRIMARY KEY (tenant_id, id);
ALTER TABLE payments_refund DROP CONSTRAINT payments_refund_pkey, ADD PRIMARY KEY (tenant_id, id);
ALTER TABLE payments_dispute DROP CONSTRAINT payments_dispute_pkey, ADD PRIMARY KEY (tenant_id, id);
ALTER TABLE payments_inboundevent DROP CONSTRAINT payments_inboundevent_pkey, ADD PRIMARY KEY (tenant_id, id);
ALTER TABLE payments_reconciliation DROP CONSTRAINT payments_reconciliation_pkey, ADD PRIMARY KEY (tenant_id, id);
ALTER TABLE payments_difference DROP CONSTRAINT payments_difference_pkey, ADD PRIMARY KEY (tenant_id, id);
ALTER TABLE payments_invitation DROP CONSTRAINT payments_invitation_pkey, ADD PRIMARY KEY (tenant_id, id);

-- Hot tables are vacuumed after a number of changes, whatever their size: at 20 % of 10 M rows it would be far too late.
-- A claim changes no indexed column: with room on the page (fillfactor) it costs no index entry. Claims take neighbours, so
-- the page needs room for all of its rows once more.
ALTER TABLE payments_payment SET (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 500000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 20000);
ALTER TABLE payments_attempt SET (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 500000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 20000);
ALTER TABLE payments_paymentevent SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 500000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 20000);
ALTER TABLE payments_ledgerentry SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 500000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 20000);
ALTER TABLE payments_refund SET (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- toast_tuple_target: the body of an event is stored apart from its row, else each claim and each outcome would copy it.
ALTER TABLE payments_inboundevent SET (
    fillfactor = 70, toast_tuple_target = 512,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 500000,
    autovacuum_analyze_scale_factor = 0.02, autovacuum_analyze_threshold = 20000);

-- A few rows, changed many times a second.
ALTER TABLE payments_stream SET (
    fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
ALTER TABLE payments_rollup SET (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE payments_endpoint SET (
    fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
