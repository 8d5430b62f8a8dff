"""When a breaker probes is each worker's own business. The column stays: processes of the version before still name it."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("payments", "0013_plans_without_limits")]

    operations = [
        migrations.SeparateDatabaseAndState(state_operations=[migrations.RemoveField("endpoint", "probe_at")]),
    ]
