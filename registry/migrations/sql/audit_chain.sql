-- The audit trail: a transaction's entries are chained by their digests when it commits, and never change afterwards.

-- The text that a digest covers. jsonb has one text form for equal values: ordered keys, no spaces of the writer's own.
-- registry/tenants/sql/audit.sql repeats this expression, so that a verification does not depend on this function.
CREATE FUNCTION registry_audit_content(e registry_auditentry) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_array(e.id, e.tenant_id, e.actor, e.action, e.target, e.rows, e.reason, e.detail,
        (extract(epoch FROM e.at) * 1000000)::bigint)::text
$$;

-- Runs at COMMIT: the head of the chain is the last row that a transaction locks, for as long as the commit takes. The first
-- call handles all entries of the transaction and locks their chains in order; later calls find no entry without a link.
CREATE FUNCTION registry_chain_audit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    e registry_auditentry;
    head registry_audithead;
BEGIN
    FOR e IN
        SELECT a.* FROM registry_auditentry a
        WHERE a.id >= NEW.id AND NOT EXISTS (SELECT FROM registry_auditlink l WHERE l.entry_id = a.id)
        ORDER BY coalesce(a.tenant_id, 0), a.id
    LOOP
        INSERT INTO registry_audithead AS h (chain, position, digest)
        VALUES (coalesce(e.tenant_id, 0), 1, sha256(convert_to(registry_audit_content(e), 'UTF8')))
        ON CONFLICT (chain) DO UPDATE SET position = h.position + 1,
            digest = sha256(h.digest || convert_to(registry_audit_content(e), 'UTF8'))
        RETURNING * INTO head;
        INSERT INTO registry_auditlink (entry_id, chain, position, digest)
        VALUES (e.id, head.chain, head.position, head.digest);
    END LOOP;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER zz_chain AFTER INSERT ON registry_auditentry
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION registry_chain_audit();

-- Entries and links are never changed or deleted; a head only moves to the next position.
CREATE FUNCTION registry_keep_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is not changed: % on %', TG_OP, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON registry_auditentry FOR EACH ROW EXECUTE FUNCTION registry_keep_audit();
CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON registry_auditlink FOR EACH ROW EXECUTE FUNCTION registry_keep_audit();
CREATE TRIGGER keep BEFORE DELETE ON registry_audithead FOR EACH ROW EXECUTE FUNCTION registry_keep_audit();
CREATE TRIGGER keep_order BEFORE UPDATE ON registry_audithead FOR EACH ROW
    WHEN (NEW.chain <> OLD.chain OR NEW.position <> OLD.position + 1) EXECUTE FUNCTION registry_keep_audit();
CREATE TRIGGER keep_all BEFORE TRUNCATE ON registry_auditentry EXECUTE FUNCTION registry_keep_audit();
CREATE TRIGGER keep_all BEFORE TRUNCATE ON registry_auditlink EXECUTE FUNCTION registry_keep_audit();
CREATE TRIGGER keep_all BEFORE TRUNCATE ON registry_audithead EXECUTE FUNCTION registry_keep_audit();
