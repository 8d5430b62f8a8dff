"""Jobs without a unique key have no entry in the index of those keys, by which claims on a fresh database read all open jobs."""

from pathlib import Path

from django.db import migrations, models

STATEMENTS = (Path(__file__).parent / "sql" / "jobs_unique_key.sql").read_text().split(";\n")


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("queueing", "0006_chore_runs")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL([one for one in STATEMENTS if one.strip()])],
            state_operations=[
                migrations.RemoveConstraint(model_name="job", name="job_unique_key"),
                migrations.AddConstraint(
                    model_name="job",
                    constraint=models.UniqueConstraint(
                        condition=models.Q(("closed", None), ("unique_key__isnull", False)),
                        fields=("unique_key", "tenant", "kind"),
                        name="job_open_key",
                    ),
                ),
            ],
        )
    ]
