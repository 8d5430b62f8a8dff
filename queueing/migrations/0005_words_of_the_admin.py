"""Names and help texts that the admin shows. The state alone: no statement changes a table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("queueing", "0004_lost_attempts"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterModelOptions(
                    name="group",
                    options={"verbose_name": "consumer group"},
                ),
                migrations.AlterField(
                    model_name="job",
                    name="attempt",
                    field=models.IntegerField(
                        db_default=0, default=0, help_text="number of the latest attempt, which only grows"
                    ),
                ),
                migrations.AlterField(
                    model_name="webhookdelivery",
                    name="attempt",
                    field=models.IntegerField(
                        db_default=0, default=0, help_text="number of the latest attempt, which only grows"
                    ),
                ),
                migrations.AlterField(
                    model_name="webhookendpoint",
                    name="ordered",
                    field=models.BooleanField(
                        db_default=False,
                        help_text="the next event of an object waits until the one before is delivered or has failed",
                    ),
                ),
                migrations.AlterField(
                    model_name="webhookdelivery",
                    name="status",
                    field=models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("held", "waits for the one before"),
                            ("delivered", "Delivered"),
                            ("dead", "failed"),
                            ("noted", "Noted"),
                        ],
                        db_default="pending",
                        max_length=10,
                    ),
                ),
            ]
        )
    ]
