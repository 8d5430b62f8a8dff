"""Audit entries are chained by their digests as their transaction commits, and cannot be changed afterwards."""

import django.db.models.deletion
import django_async_backend.db.models.base
from django.db import migrations, models

# What a digest is taken of. jsonb has one text form for equal values: keys ordered, no spaces of the writer's own.
# registry/tenants/sql/audit.sql says the same in its own words, so that a verification does not rest on this function.
CONTENT = """
CREATE FUNCTION registry_audit_content(e registry_auditentry) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_array(e.id, e.tenant_id, e.actor, e.action, e.target, e.rows, e.reason, e.detail,
        (extract(epoch FROM e.at) * 1000000)::bigint)::text
$$;
"""

# Runs at COMMIT: the chain's head is the last row that a transaction locks, for as long as the commit takes. Several chains
# are locked in order, by the first call for all entries of the transaction; those after it find nothing left to do.
CHAIN = """
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
"""

KEEP = """
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
"""

# Entries from before there was a chain: in the order of their ids.
FIRST_LINKS = """
DO $$
DECLARE
    e registry_auditentry;
    head registry_audithead;
BEGIN
    FOR e IN SELECT * FROM registry_auditentry ORDER BY coalesce(tenant_id, 0), id LOOP
        INSERT INTO registry_audithead AS h (chain, position, digest)
        VALUES (coalesce(e.tenant_id, 0), 1, sha256(convert_to(registry_audit_content(e), 'UTF8')))
        ON CONFLICT (chain) DO UPDATE SET position = h.position + 1,
            digest = sha256(h.digest || convert_to(registry_audit_content(e), 'UTF8'))
        RETURNING * INTO head;
        INSERT INTO registry_auditlink (entry_id, chain, position, digest)
        VALUES (e.id, head.chain, head.position, head.digest);
    END LOOP;
END $$;
"""

UNDO = """
DROP FUNCTION registry_chain_audit(), registry_keep_audit(), registry_audit_content(registry_auditentry) CASCADE;
"""


class Migration(migrations.Migration):
    dependencies = [("registry", "0002_known_currency_and_limit")]

    operations = [
        migrations.SeparateDatabaseAndState(  # Django's own rule; the database's constraint stays as it is
            state_operations=[
                migrations.AlterField(
                    model_name="auditentry",
                    name="tenant",
                    field=models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="registry.tenant",
                    ),
                )
            ]
        ),
        migrations.CreateModel(
            name="AuditHead",
            fields=[
                ("chain", models.BigIntegerField(primary_key=True, serialize=False)),
                ("position", models.BigIntegerField()),
                ("digest", models.BinaryField(max_length=32)),
            ],
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.CreateModel(
            name="AuditLink",
            fields=[
                ("entry_id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("chain", models.BigIntegerField(help_text="the tenant's id; 0: the service's own")),
                ("position", models.BigIntegerField(help_text="from 1, without gaps, in the order of commits")),
                (
                    "digest",
                    models.BinaryField(help_text="SHA-256 of the digest before and the entry's content", max_length=32),
                ),
            ],
            options={
                "constraints": [models.UniqueConstraint(fields=("chain", "position"), name="one_link_per_position")],
            },
            bases=(django_async_backend.db.models.base.AsyncModelMixin, models.Model),
        ),
        migrations.RunSQL(CONTENT + FIRST_LINKS + CHAIN + KEEP, UNDO),
    ]
