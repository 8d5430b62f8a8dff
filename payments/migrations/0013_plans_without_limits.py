"""Plans say nothing of how many payments are included, as nothing counts them.

The column stays, with a default: processes of the version before still write it while this one takes over.
"""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("payments", "0012_ledger_causes")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE payments_plan ALTER COLUMN included SET DEFAULT 0",
                    "ALTER TABLE payments_plan ALTER COLUMN included DROP DEFAULT",
                )
            ],
            state_operations=[migrations.RemoveField("plan", "included")],
        ),
    ]
