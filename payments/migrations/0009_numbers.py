"""Events are numbered without a new version of the stream's row."""

from pathlib import Path

from django.db import migrations

NUMBERS = Path(__file__).parent / "sql" / "numbers.sql"


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0008_purged_at"),
    ]

    operations = [
        migrations.RunSQL(
            NUMBERS.read_text(), "DROP VIEW payments_latest; DROP FUNCTION payments_number(bigint, bigint);"
        ),
    ]
