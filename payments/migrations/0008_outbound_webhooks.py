"""Webhooks that tenants receive."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("payments", "0007_inbound_webhooks")]

    operations: list = []
