"""Indexes of callbacks, on tables that may be large: made beside writes, and made anew if this was cut off."""

from django.db import migrations, models

from registry.data.creation import AddIndexRepeatably


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("queueing", "0002_jobs")]

    operations = [
        AddIndexRepeatably(
            model_name="webhookdelivery",
            index=models.Index(
                condition=models.Q(("callback_url__gt", "")), fields=["tenant", "-id"], name="webhook_delivery_callback"
            ),
        ),
        AddIndexRepeatably(
            model_name="webhookdelivery",
            index=models.Index(
                condition=models.Q(("callback_url__gt", "")),
                fields=["subject", "id", "tenant"],
                name="webhook_delivery_of_job",
            ),
        ),
        AddIndexRepeatably(
            model_name="webhookendpoint",
            index=models.Index(
                condition=models.Q(("callback", False), ("deleted_at", None)),
                fields=["tenant", "id"],
                name="webhook_endpoint_subscribed",
            ),
        ),
    ]
