"""Names and help texts that the admin shows. The state alone: no statement changes a table."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("registry", "0001_initial"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterModelOptions(
                    name="auditentry",
                    options={"ordering": ["-id"], "verbose_name_plural": "audit log"},
                ),
            ]
        )
    ]
