"""Events of jobs are numbered without a new version of the stream's row."""

from pathlib import Path

from django.db import migrations

NUMBERS = Path(__file__).parent / "sql" / "job_numbers.sql"


class Migration(migrations.Migration):
    dependencies = [
        ("queueing", "0008_worker_processes"),
    ]

    operations = [
        migrations.RunSQL(
            NUMBERS.read_text(), "DROP VIEW queueing_job_latest; DROP FUNCTION queueing_job_number(bigint, bigint);"
        ),
    ]
