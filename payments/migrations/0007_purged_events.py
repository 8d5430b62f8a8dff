"""How many events purges deleted, and the number of the latest one."""

from pathlib import Path

from django.db import migrations, models

BASE = Path(__file__).parent / "sql" / "purged_events.sql"


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0006_attempt_rollups"),
    ]

    operations = [
        migrations.AddField(
            model_name="stream",
            name="purged",
            field=models.BigIntegerField(default=0, db_default=0, help_text="number of events that purges deleted"),
        ),
        migrations.AddField(
            model_name="stream",
            name="purged_until",
            field=models.BigIntegerField(default=0, db_default=0, help_text="number of the latest of them"),
        ),
        migrations.RunSQL(BASE.read_text(), migrations.RunSQL.noop),
    ]
