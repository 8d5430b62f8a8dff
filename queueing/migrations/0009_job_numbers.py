"""Events of jobs are numbered without a new version of the stream's row."""

from pathlib import Path

from django.db import migrations, models

NUMBERS = Path(__file__).parent / "sql" / "job_numbers.sql"


class Migration(migrations.Migration):
    dependencies = [
        ("queueing", "0008_worker_processes"),
    ]

    operations = [
        migrations.RunSQL(
            NUMBERS.read_text(), "DROP VIEW queueing_job_latest; DROP FUNCTION queueing_job_number(bigint, bigint);"
        ),
        migrations.AlterField(
            model_name="jobstream",
            name="position",
            field=models.BigIntegerField(
                default=0, help_text="a number that no deleted event is above; the latest number is the latest event's"
            ),
        ),
    ]
