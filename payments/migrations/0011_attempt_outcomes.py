"""Attempts may end with "requires_action" and "canceled". A longer limit of text is one word in the catalogue, not a rewrite."""

from django.db import migrations, models

OUTCOMES = [
    ("booked", "Booked"),
    ("declined", "Declined"),
    ("not_booked", "not booked"),
    ("unknown", "Unknown"),
    ("requires_action", "requires action"),
    ("canceled", "Canceled"),
]


class Migration(migrations.Migration):
    dependencies = [("payments", "0010_billing")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunSQL(
                    "ALTER TABLE payments_attempt ALTER COLUMN outcome TYPE varchar(20)", migrations.RunSQL.noop
                ),
            ],
            state_operations=[
                migrations.AlterField(
                    model_name="attempt",
                    name="outcome",
                    field=models.CharField(
                        choices=OUTCOMES, default="", help_text="empty: not known yet", max_length=20
                    ),
                ),
            ],
        )
    ]
