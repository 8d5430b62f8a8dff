"""Names and help texts that the admin shows. The state alone: no statement changes a table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0003_processor_public_only"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterModelOptions(
                    name="difference",
                    options={
                        "ordering": ["-id"],
                        "verbose_name": "discrepancy",
                        "verbose_name_plural": "discrepancies",
                    },
                ),
                migrations.AlterModelOptions(
                    name="endpoint",
                    options={"ordering": ["key"], "verbose_name": "circuit breaker"},
                ),
                migrations.AlterField(
                    model_name="inboundevent",
                    name="attempt",
                    field=models.IntegerField(
                        db_default=0, default=0, help_text="number of the latest attempt, which only grows"
                    ),
                ),
                migrations.AlterField(
                    model_name="payment",
                    name="attempt",
                    field=models.IntegerField(
                        db_default=0, default=0, help_text="number of the latest attempt, which only grows"
                    ),
                ),
                migrations.AlterField(
                    model_name="refund",
                    name="attempt",
                    field=models.IntegerField(
                        db_default=0, default=0, help_text="number of the latest attempt, which only grows"
                    ),
                ),
            ]
        )
    ]
