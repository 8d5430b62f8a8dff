"""Finds traces by the names they were given."""

from django.db import migrations


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("queueing", "0004_ended_dead_letters")]

    operations = [
        migrations.RunSQL(
            "CREATE INDEX CONCURRENTLY trace_names ON queueing_trace USING gin (names jsonb_path_ops)",
            "DROP INDEX CONCURRENTLY trace_names",
        ),
    ]
