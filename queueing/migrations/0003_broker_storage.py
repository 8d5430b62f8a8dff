"""The message queue's keys, room for in-place updates, vacuum by rows, and its functions."""

from pathlib import Path

from django.db import migrations

FUNCTIONS = Path(__file__).parents[1] / "broker" / "sql" / "functions.sql"


def by_tenant(table: str) -> migrations.RunSQL:
    name = f"queueing_{table}"
    return migrations.RunSQL(
        f"ALTER TABLE {name} DROP CONSTRAINT {name}_pkey; ALTER TABLE {name} ADD PRIMARY KEY (tenant_id, id)",
        f"ALTER TABLE {name} DROP CONSTRAINT {name}_pkey; ALTER TABLE {name} ADD PRIMARY KEY (id)",
    )


def storage(table: str, **parameters: object) -> migrations.RunSQL:
    settings = ", ".join(f"{key} = {value}" for key, value in parameters.items())
    return migrations.RunSQL(
        f"ALTER TABLE queueing_{table} SET ({settings})",
        f"ALTER TABLE queueing_{table} RESET ({', '.join(parameters)})",
    )


# Small and changed with every push, pop and ack: vacuumed after so many changes, whatever their size.
BUSY = {"fillfactor": 40, "autovacuum_vacuum_scale_factor": 0, "autovacuum_vacuum_threshold": 5000}


class Migration(migrations.Migration):
    dependencies = [("queueing", "0002_broker")]

    operations = [
        *(by_tenant(table) for table in ("deadmessage", "trace")),
        storage("partition", **BUSY),
        storage("consumer", **BUSY),
        storage(
            "message",
            autovacuum_vacuum_scale_factor=0,
            autovacuum_vacuum_threshold=100_000,
            autovacuum_vacuum_insert_scale_factor=0,
            autovacuum_vacuum_insert_threshold=500_000,
            autovacuum_analyze_scale_factor=0.02,
            autovacuum_analyze_threshold=20_000,
        ),
        migrations.RunSQL(
            FUNCTIONS.read_text().replace("%", "%%"),
            "DROP FUNCTION queueing_push, queueing_rest, queueing_complete, queueing_claim",
        ),
    ]
