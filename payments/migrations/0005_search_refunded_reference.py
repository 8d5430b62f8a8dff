"""Indexes for the console's lists: refunded payments, and attempts by the processor's reference."""

from django.db import migrations, models

from registry.data.creation import AddIndexRepeatably


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("payments", "0004_words_of_the_admin"),
    ]

    operations = [
        AddIndexRepeatably(
            model_name="attempt",
            index=models.Index(
                condition=models.Q(("reference__gt", " ")), fields=["reference", "tenant"], name="attempt_reference"
            ),
        ),
        AddIndexRepeatably(
            model_name="payment",
            index=models.Index(
                condition=models.Q(("refunded__gt", 0)), fields=["tenant", "created_at", "id"], name="payment_refunded"
            ),
        ),
    ]
