"""Payments in doubt have an index of their own: they are asked about even where nothing new may be sent."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False  # built beside the work, which goes on

    dependencies = [
        ("payments", "0003_scheduled_for"),
        ("registry", "0001_initial"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="payment",
            index=models.Index(
                condition=models.Q(("closed", None), ("in_doubt_since__isnull", False)),
                fields=["tenant", "run_at", "id"],
                name="payment_in_doubt",
            ),
        ),
    ]
