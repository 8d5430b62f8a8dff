"""What went back is found without reading what was booked: an index of the few lines that are not payments'."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("payments", "0011_attempt_outcomes")]

    operations = [
        AddIndexConcurrently(
            "ledgerentry",
            models.Index(
                fields=["tenant", "currency"],
                include=["account", "amount"],
                condition=~models.Q(cause="payment"),
                name="ledger_causes",
            ),
        ),
    ]
