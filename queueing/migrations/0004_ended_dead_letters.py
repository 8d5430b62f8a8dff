"""Finds dead letters that were replayed or purged without reading those that are open."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("queueing", "0003_broker_storage")]

    operations = [
        AddIndexConcurrently(
            model_name="deadmessage",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False)), fields=["ended_at"], name="dead_message_ended"
            ),
        ),
    ]
