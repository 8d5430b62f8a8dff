"""Primary keys that lead with the tenant, room for in-place (HOT) updates, and vacuum by rows instead of by share."""

from django.db import migrations

TABLES = ("payment", "attempt", "ledgerentry")


def by_tenant(table: str) -> migrations.RunSQL:
    name = f"payments_{table}"
    return migrations.RunSQL(
        f"ALTER TABLE {name} DROP CONSTRAINT {name}_pkey; ALTER TABLE {name} ADD PRIMARY KEY (tenant_id, id)",
        f"ALTER TABLE {name} DROP CONSTRAINT {name}_pkey; ALTER TABLE {name} ADD PRIMARY KEY (id)",
    )


def storage(table: str, **parameters: object) -> migrations.RunSQL:
    settings = ", ".join(f"{key} = {value}" for key, value in parameters.items())
    return migrations.RunSQL(
        f"ALTER TABLE payments_{table} SET ({settings})",
        f"ALTER TABLE payments_{table} RESET ({', '.join(parameters)})",
    )


# A hot table is vacuumed after so many changes, whatever its size: at 20 % of 10 M rows it would be far too late.
STEADY_VACUUM = {
    "autovacuum_vacuum_scale_factor": 0,
    "autovacuum_vacuum_threshold": 100_000,
    "autovacuum_vacuum_insert_scale_factor": 0,
    "autovacuum_vacuum_insert_threshold": 500_000,
    "autovacuum_analyze_scale_factor": 0.02,
    "autovacuum_analyze_threshold": 20_000,
}


class Migration(migrations.Migration):
    dependencies = [("payments", "0001_initial")]

    operations = [
        *(by_tenant(table) for table in TABLES),
        # A claim changes no indexed column: with room on the page it costs no index entry. Claims take neighbours, so the
        # page must have room for all of its rows once more.
        storage("payment", fillfactor=50, **STEADY_VACUUM),
        storage("attempt", fillfactor=50, **STEADY_VACUUM),
        storage("paymentevent", **STEADY_VACUUM),
        storage("ledgerentry", **STEADY_VACUUM),
        # A few rows, changed many times a second.
        storage("stream", fillfactor=20, autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=2000),
        storage("rollup", fillfactor=60, autovacuum_vacuum_scale_factor=0.05),
        storage("endpoint", fillfactor=30, autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=2000),
    ]
