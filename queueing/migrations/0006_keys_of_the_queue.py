"""Keys that no other index resembles (docs/decisions/024), and the functions, which look dead letters up by them."""

from pathlib import Path

from django.db import migrations, models

FUNCTIONS = Path(__file__).parents[1] / "broker" / "sql" / "functions.sql"


class Migration(migrations.Migration):
    dependencies = [
        ("queueing", "0005_trace_names"),
        ("registry", "0005_blocked"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="deadmessage",
            name="one_dead_message_per_group",
        ),
        migrations.RemoveIndex(
            model_name="consumer",
            name="consumer_lease",
        ),
        migrations.RemoveIndex(
            model_name="deadmessage",
            name="dead_message_queue",
        ),
        migrations.AddIndex(
            model_name="consumer",
            index=models.Index(
                condition=models.Q(("lease_id__isnull", False)), fields=["lease_id", "tenant"], name="consumer_lease"
            ),
        ),
        migrations.AddIndex(
            model_name="deadmessage",
            index=models.Index(fields=["queue", "-failed_at", "tenant"], name="dead_message_queue"),
        ),
        migrations.AddConstraint(
            model_name="deadmessage",
            constraint=models.UniqueConstraint(
                fields=("partition", "group", "seq", "tenant"), name="one_dead_message_per_group"
            ),
        ),
        migrations.RunSQL(FUNCTIONS.read_text().replace("%", "%%"), migrations.RunSQL.noop),
    ]
