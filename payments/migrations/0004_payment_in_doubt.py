"""Payments in doubt have an index of their own: they are asked about even where nothing new may be sent."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("payments", "0003_scheduled_for"),
        ("registry", "0001_initial"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="payment",
            index=models.Index(
                condition=models.Q(("closed", None), ("in_doubt_since__isnull", False)),
                fields=["tenant", "run_at", "id"],
                name="payment_in_doubt",
            ),
        ),
    ]
